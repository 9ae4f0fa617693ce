"""Validation batches: the same windows, pairs and masks at every evaluation, made as in the original XLM.

All masks of a set come from one random generator, in order. So every process generates all of them, and uses its own
share.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from xlmtrain.config.data import SEQ2SEQ_OBJECTIVES
from xlmtrain.config.phases import combined_data
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch, make_batch, make_causal_batch, make_seq2seq_batch
from xlmtrain.data.dataset import Dataset, check_ids, corpus_names
from xlmtrain.data.noise import Noise
from xlmtrain.data.sequences import SequenceBatch, pair_sequences, sentence_sequences, window_sequences
from xlmtrain.data.sources import cut_by_tokens
from xlmtrain.errors import DataError
from xlmtrain.runtime.rng import generator

_Masked = tuple[SequenceBatch, np.ndarray | None]
"""Sequences, and the positions to predict, (B, T) bool; None for CLM."""


class ValidationSet:
    """Batches of one objective on one language, pair or direction (``key``) of a split.

    MLM and CLM read the whole text, in windows or by documents, as in training; TLM, translation and denoising read the
    sentences that fit into the position table. Raises DataError for an empty set, whose perplexity would be perfect.
    """

    def __init__(self, config: Config, dataset: Dataset, split: str, objective: str, key: str) -> None:
        self.objective, self.key = objective, key
        self.name = f"{split}/{key}_{objective}"
        self._config, self._dataset, self._special = config, dataset, dataset.vocab.special
        self._languages = [dataset.language_id(language) for language in key.split("-")]
        pair = "-" in key
        self._corpora = dataset.pair(split, key) if pair else (dataset.corpus(f"{split}.{key}"),) * 2
        if not len(self._usable_pairs() if pair or objective in SEQ2SEQ_OBJECTIVES else self._corpora[0].ids):
            raise DataError(
                f"{split}.{key}: nothing to evaluate {objective} on; give it text or leave it out of the data"
            )

    def batches(self, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield this process's share of the batches: every ``world_size``-th."""
        if self.objective in SEQ2SEQ_OBJECTIVES:
            yield from self._seq2seq_batches(rank, world_size)
            return
        masks = np.random.RandomState(0)  # generator and seed of the original XLM: the masks are part of the metric
        for number, (sequences, selected) in enumerate(self._masked_sequences(masks)):
            if number % world_size != rank:
                continue
            check_ids(sequences.tokens, len(self._dataset.vocab), self.name)
            if selected is None:
                yield make_causal_batch(sequences, self.name)
            else:
                inputs = np.where(selected, self._special.mask, sequences.tokens)
                yield make_batch(self.objective, sequences, inputs, selected, name=self.name)

    def _seq2seq_batches(self, rank: int, world_size: int) -> Iterator[Batch]:
        noise = Noise(self._config.noise, self._dataset.vocab)
        for number, sides in enumerate(self._pair_batches()):
            if number % world_size != rank:
                continue
            languages = self._languages[0], self._languages[-1]
            source, target = (sentence_sequences(*side, self._special) for side in zip(sides, languages))
            for side in (source, target):
                check_ids(side.tokens, len(self._dataset.vocab), self.name)
            if self.objective == "dae":
                source = noise(source, generator(0, "validation noise", self.key, number))
            yield make_seq2seq_batch(self.objective, source, target, self.name)

    def _masked_sequences(self, masks: np.random.RandomState) -> Iterator[_Masked]:
        if self.objective == "tlm":
            for sides in self._pair_batches():
                sequences = pair_sequences(*sides, self._languages, self._special)
                yield sequences, self._select(sequences, masks, len(sequences.tokens))
        else:
            by_documents = self._corpora[0].documents and not self._config.data.across_documents
            for sequences in self._documents() if by_documents else self._windows():
                yield sequences, None if self.objective == "clm" else self._select(sequences, masks, 1)

    def _select(self, sequences: SequenceBatch, masks: np.random.RandomState, rows: int) -> np.ndarray:
        """Return (B, T) bool: a share ``mask.prob`` of the tokens between first and last, at least one a sequence.

        ``rows``: number of sequences that share one sampling, position by position as in the original XLM: a batch of
        TLM, one window of running text.
        """
        count, length = sequences.tokens.shape
        selected = np.empty((count, length), dtype=bool)
        maskable = self._dataset.vocab.maskable[sequences.tokens]
        for start in range(0, count, rows):
            selected[start : start + rows] = (masks.rand(length, rows) <= self._config.mask.prob).T
            for row, end in enumerate(sequences.lengths[start : start + rows] - 1, start):
                selected[row, 0] = False
                selected[row, end:] = False
                selected[row] &= maskable[row]
                if not selected[row].any() and maskable[row, 1:end].any():
                    selected[row, masks.choice(np.flatnonzero(maskable[row, 1:end]) + 1)] = True
        return selected

    def _windows(self) -> Iterator[SequenceBatch]:
        """Yield windows of the running text, in order; begins of a sequence in front fill up the first window."""
        length = self._config.data.sequence_length
        ids = self._corpora[0].ids[: self._config.evaluate.max_tokens or None]
        count = -(-len(ids) // length)
        fill = count * length - len(ids) + 1  # one more, so that the first window always begins with one
        size = max(1, self._config.evaluate.batch_tokens // length)
        for start in range(0, count, size):
            place = np.arange(start * length, min(start + size, count) * length) - fill
            tokens = np.where(place < 0, self._special.bos, ids[np.maximum(place, 0)]).astype(np.int64)
            yield window_sequences(tokens.reshape(-1, length), self._languages[0])

    def _documents(self) -> Iterator[SequenceBatch]:
        """Yield documents, or their pieces, of similar length, ``evaluate.batch_tokens`` at a time with the padding."""
        begins, ends = self._corpora[0].document_pieces(self._config.data.sequence_length - 1)
        read = np.cumsum(ends - begins) <= (self._config.evaluate.max_tokens or np.inf)
        order = np.flatnonzero(read)[np.argsort((ends - begins)[read], kind="stable")]
        for begin, end in pairwise(cut_by_tokens((ends - begins)[order] + 1, self._config.evaluate.batch_tokens)):
            chosen = order[begin:end]
            pieces = self._corpora[0].spans(begins[chosen], ends[chosen])
            yield sentence_sequences(pieces, self._languages[0], self._special)

    def _pair_batches(self) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
        """Yield both sides of pairs of similar length, ``evaluate.pairs_per_batch`` or one fewer at a time."""
        first, second = self._corpora
        pairs = self._usable_pairs()
        order = pairs[np.argsort((first.lengths() + second.lengths())[pairs], kind="stable")]
        parts = max(1, -(-len(order) // self._config.evaluate.pairs_per_batch))
        for chosen in np.array_split(order, parts):
            if len(chosen):
                yield first.sentences(chosen.tolist()), second.sentences(chosen.tolist())

    def _usable_pairs(self) -> np.ndarray:
        """Return the indices of the pairs to evaluate on."""
        lengths = np.stack([corpus.lengths() for corpus in self._corpora])
        usable = (lengths.max(axis=0) + 2 <= self._config.model.max_positions) & (lengths.min(axis=0) > 0)
        if self._config.evaluate.max_tokens:
            usable &= np.cumsum(lengths.sum(axis=0)) <= self._config.evaluate.max_tokens
        return np.flatnonzero(usable)


class ParallelClozeSet(ValidationSet):
    """Cloze on parallel text: one side of each pair is masked, and the model also reads the other side, or does not.

    ``parallel``: the model reads the translation (objective ``cloze_parallel``) or the masked side only
    (``cloze_mono``). Both have the same masks in batches of the same pairs, so the translation is the only difference.
    ``masked``: the language to predict; the key is like ``en-de`` for English words. ``max_pairs``: use the first so
    many pairs; 0 uses all.
    """

    def __init__(
        self, config: Config, dataset: Dataset, split: str, pair: str, masked: str, parallel: bool, max_pairs: int = 0
    ) -> None:
        self._max_pairs = max_pairs
        super().__init__(config, dataset, split, "tlm", pair)
        languages = pair.split("-")
        self._side = languages.index(masked)
        self.objective = "cloze_parallel" if parallel else "cloze_mono"
        self.key = f"{masked}-{languages[1 - self._side]}"
        self.name = f"{split}/{self.key}_{self.objective}"

    def _masked_sequences(self, masks: np.random.RandomState) -> Iterator[_Masked]:
        for sides in self._pair_batches():
            sequences = sentence_sequences(sides[self._side], self._languages[self._side], self._special)
            selected = self._select(sequences, masks, 1)
            if self.objective == "cloze_parallel":
                # Move the masks to where the side begins in the sequence of the pair.
                starts = np.array([self._side * (len(sentence) + 1) for sentence in sides[0]])
                row, column = np.nonzero(selected)
                sequences = pair_sequences(*sides, self._languages, self._special)
                selected = np.zeros(sequences.tokens.shape, dtype=bool)
                selected[row, starts[row] + column] = True
            yield sequences, selected

    def _usable_pairs(self) -> np.ndarray:
        return super()._usable_pairs()[: self._max_pairs or None]


def parallel_cloze_sets(
    config: Config, dataset: Dataset, split: str = "valid", max_pairs: int = 0
) -> list[ValidationSet]:
    """Return the cloze sets of every side of every pair of ``split``, without and with the translation."""
    return [
        ParallelClozeSet(config, dataset, split, pair, masked, parallel, max_pairs)
        for pair in dataset.pairs(split)
        for masked in pair.split("-")
        for parallel in (False, True)
    ]


def validation_sets(config: Config, dataset: Dataset, split: str = "valid") -> list[ValidationSet]:
    """Return the sets of ``split`` for all objectives and keys of the training mixture that the data has.

    Back-translation is measured as translation in its direction, which takes pairs.
    """
    weights = combined_data(config).weights
    chosen = [("mt" if objective == "bt" else objective, key) for objective in weights for key in weights[objective]]
    return [
        ValidationSet(config, dataset, split, objective, key)
        for objective, key in dict.fromkeys(chosen)
        if all(dataset.has(name) for name in corpus_names(split, objective, key))
    ]
