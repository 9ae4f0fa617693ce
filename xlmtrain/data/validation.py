"""Validation batches: the same windows, pairs and masks at every evaluation, as the ancestor makes them.

All of a set's masks come from one generator in one order, so every process walks all of them and keeps its own share.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch, make_batch, make_causal_batch
from xlmtrain.data.dataset import Corpus, Dataset, check_ids, corpus_names
from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.data.sequences import Sequences, pair_sequences, sentence_sequences, stream_sequences
from xlmtrain.errors import DataError
from xlmtrain.text.vocab import EOS, MASK


class ValidationSet:
    """One objective on one language or pair of a split, as batches.

    MLM and CLM read the whole text in windows; TLM reads the pairs that fit into the position table. Raises DataError
    if that is nothing: its perplexity would be the best there is.
    """

    def __init__(self, config: Config, dataset: Dataset, split: str, objective: str, key: str) -> None:
        self.objective, self.key = objective, key
        self.name = f"{split}/{key}_{objective}"
        self._config, self._dataset = config, dataset
        self._languages = [dataset.language_id(language) for language in key.split("-")]
        if objective == "tlm":
            self._pair = dataset.pair(split, key)
            empty = not len(self._usable_pairs(*self._pair))
        else:
            self._corpus = dataset.corpus(f"{split}.{key}")
            empty = not len(self._corpus.ids)
        if empty:
            raise DataError(
                f"{split}.{key}: nothing to evaluate {objective} on; give it text or leave it out of the data"
            )

    def batches(self, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """This process's share of the batches: every ``world_size``-th."""
        made = self._pair_rows() if self.objective == "tlm" else self._stream_rows()
        masks = np.random.RandomState(0)  # the ancestor's generator and seed: the masks are part of the metric
        for number, rows in enumerate(made):
            selected = None if self.objective == "clm" else self._select(rows, masks)
            if number % world_size != rank:
                continue
            check_ids(rows.tokens, len(self._dataset.vocab), self.name)
            if selected is None:
                yield make_causal_batch(rows, self.name)
            else:
                yield make_batch(self.objective, rows, np.where(selected, MASK, rows.tokens), selected, self.name)

    def _select(self, rows: Sequences, masks: np.random.RandomState) -> np.ndarray:
        """(B, T) bool: ``mask.prob`` of the tokens between the first and the last of a row, at least one a row."""
        count, length = rows.tokens.shape
        # The ancestor draws time-first, for a stream window by window.
        at_once = count if self.objective == "tlm" else 1
        selected = np.empty((count, length), dtype=bool)
        for start in range(0, count, at_once):
            selected[start : start + at_once] = (masks.rand(length, at_once) <= self._config.mask.prob).T
            for row in range(start, start + at_once):
                selected[row, 0] = False
                selected[row, rows.lengths[row] - 1 :] = False
                if not selected[row].any():
                    selected[row, masks.randint(1, rows.lengths[row] - 1)] = True
        return selected

    def _stream_rows(self) -> Iterator[Sequences]:
        """Windows of the running text, in order, the text at the far end of a run of EOS that fills the first."""
        length = self._config.data.sequence_length
        ids = self._corpus.ids[: self._config.evaluate.max_tokens or None]
        count = -(-len(ids) // length)
        filler = count * length - len(ids) + 1  # and one more, so that the first window begins with EOS
        at_once = max(1, self._config.evaluate.batch_tokens // length)
        for start in range(0, count, at_once):
            place = np.arange(start * length, min(start + at_once, count) * length) - filler
            tokens = np.where(place < 0, EOS, ids[np.maximum(place, 0)]).astype(np.int64)
            yield stream_sequences(tokens.reshape(-1, length), self._languages[0])

    def _pair_rows(self) -> Iterator[Sequences]:
        for first, second in self._sides():
            yield pair_sequences(first, second, (self._languages[0], self._languages[1]))

    def _sides(self) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
        """Both sides of pairs of similar length, ``evaluate.pairs_per_batch`` or one fewer to a batch."""
        first, second = self._pair
        pairs = self._usable_pairs(first, second)
        row_lengths = first.lengths()[pairs] + second.lengths()[pairs] + 4
        order = pairs[np.argsort(row_lengths, kind="stable")]
        parts = max(1, -(-len(order) // self._config.evaluate.pairs_per_batch))
        for chosen in np.array_split(order, parts):
            if len(chosen):
                yield first.sentences(chosen.tolist()), second.sentences(chosen.tolist())

    def _usable_pairs(self, first: Corpus, second: Corpus) -> np.ndarray:
        lengths = np.stack([first.lengths(), second.lengths()])
        usable = (lengths.max(axis=0) + 2 <= self._config.model.max_positions) & (lengths.min(axis=0) > 0)
        if self._config.evaluate.max_tokens:
            usable &= np.cumsum(lengths.sum(axis=0)) <= self._config.evaluate.max_tokens
        return np.flatnonzero(usable)


class ParallelClozeSet(ValidationSet):
    """The pairs of a split with words of one side hidden, the translation in view (``aided``) or not (``alone``).

    Both objectives hide the same words, in batches of the same pairs, so that all they differ in is what the model
    sees. ``hidden``: the language of that side; the key is like ``en-de`` for English words and German in view.
    ``most``: take the first so many pairs; 0 takes all.
    """

    def __init__(
        self, config: Config, dataset: Dataset, split: str, pair: str, hidden: str, aided: bool, most: int = 0
    ) -> None:
        self._most = most
        super().__init__(config, dataset, split, "tlm", pair)
        languages = pair.split("-")
        self._side = languages.index(hidden)
        self.objective, self.key = "aided" if aided else "alone", f"{hidden}-{languages[1 - self._side]}"
        self.name = f"{split}/{self.key}_{self.objective}"

    def batches(self, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """As of any set."""
        masks = np.random.RandomState(0)
        for number, sides in enumerate(self._sides()):
            rows = sentence_sequences(sides[self._side], self._languages[self._side])
            selected = self._select(rows, masks)
            if number % world_size != rank:
                continue
            if self.objective == "aided":
                # In the pair's row the second sentence begins where the first ends.
                starts = np.array([self._side * (len(sentence) + 1) for sentence in sides[0]])
                row, column = np.nonzero(selected)
                rows = pair_sequences(*sides, (self._languages[0], self._languages[1]))
                selected = np.zeros(rows.tokens.shape, dtype=bool)
                selected[row, starts[row] + column] = True
            check_ids(rows.tokens, len(self._dataset.vocab), self.name)
            yield make_batch(self.objective, rows, np.where(selected, MASK, rows.tokens), selected, self.name)

    def _usable_pairs(self, first: Corpus, second: Corpus) -> np.ndarray:
        return super()._usable_pairs(first, second)[: self._most or None]


def parallel_cloze_sets(config: Config, dataset: Dataset, split: str = "valid", most: int = 0) -> list[ValidationSet]:
    """Every side of every pair of ``split``, alone and aided; ``most`` as in :class:`ParallelClozeSet`."""
    return [
        ParallelClozeSet(config, dataset, split, pair, hidden, aided, most)
        for pair in dataset.pairs(split)
        for hidden in pair.split("-")
        for aided in (False, True)
    ]


def validation_sets(config: Config, dataset: Dataset, split: str = "valid") -> list[ValidationSet]:
    """The sets of ``split`` for everything the settings train on, as far as the data has them."""
    sets = []
    for objective in OBJECTIVES:
        for key, weight in getattr(config.data, objective).items():
            if weight > 0 and all(dataset.has(name) for name in corpus_names(split, objective, key)):
                sets.append(ValidationSet(config, dataset, split, objective, key))
    return sets
