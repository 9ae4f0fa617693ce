"""Sources of training sequences: running text in windows or by documents, sentence pairs, or sources with targets.

A source is an endless series of epochs of sub-batches. ``sequences(epoch, index)`` depends on the seed and its
arguments only, so any process can read any sub-batch, in any order, at the same cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from xlmtrain.data.dataset import Corpus
from xlmtrain.data.permutation import Permutation
from xlmtrain.data.sequences import SequenceBatch, pair_sequences, sentence_sequences, window_sequences, windows
from xlmtrain.errors import DataError
from xlmtrain.runtime.rng import generator
from xlmtrain.text.vocab import XLM_IDS, SpecialIds

_CHUNK_PAIRS = 1 << 20


class Source(Protocol):
    """Text that sub-batches are read from; ``sentences``: its size."""

    sentences: int

    def sub_batch_count(self, epoch: int) -> int:
        """Return the number of sub-batches in an epoch."""

    def sequences(self, epoch: int, index: int) -> SequenceBatch:
        """Return the sequences of one sub-batch."""


class WindowSource:
    """Running text of one language in windows of ``length`` tokens, ``count`` windows in a sub-batch.

    Each epoch cuts at another offset and visits every window once, in another order. Raises DataError if the text is
    shorter than a window.
    """

    def __init__(self, corpus: Corpus, language: int, length: int, count: int, seed: int) -> None:
        self.sentences = len(corpus)
        self._corpus, self._length, self._count, self._seed = corpus, length, count, seed
        self._windows = len(corpus.ids) // length
        if self._windows == 0:
            raise DataError(
                f"{corpus.name}: {len(corpus.ids)} tokens, less than one sequence of data.sequence_length={length}"
            )
        # Positions, languages and lengths are the same for all sub-batches.
        self._shared = window_sequences(np.zeros((count, length), dtype=np.int64), language)
        self._epoch = -1

    def sub_batch_count(self, epoch: int) -> int:
        """Return the number of sub-batches, the same in every epoch."""
        return -(-self._windows // self._count)

    def sequences(self, epoch: int, index: int) -> SequenceBatch:
        """Return (count, length) tokens; windows of the first sub-batch fill up the epoch's last."""
        if epoch != self._epoch:
            name = self._corpus.name
            self._offset = int(generator(self._seed, "offset", name, epoch).integers(self._length))
            self._order = Permutation(self._windows, generator(self._seed, "windows", name, epoch))
            self._epoch = epoch
        window = self._order.run(index * self._count, self._count)
        tokens = windows(self._corpus.ids, self._offset + window * self._length, self._length)
        return self._shared._replace(tokens=tokens)


class SortedSource:
    """Items of similar length, as many as fit into ``sub_batch_tokens`` with padding, in another order each epoch.

    ``name``: of the corpus. ``lengths``: (sides, items), tokens of each item, delimiters included.
    """

    def __init__(self, name: str, lengths: np.ndarray, sub_batch_tokens: int, seed: int) -> None:
        # Together with an epoch's order, these and what a subclass keeps of an item take 12 bytes per item.
        self._name, self._lengths = name, lengths
        self._sub_batch_tokens, self._seed = sub_batch_tokens, seed
        self._epoch = -1

    def sub_batch_count(self, epoch: int) -> int:
        """Return the number of sub-batches, which varies a little with the epoch's shuffle."""
        self._start_epoch(epoch)
        return len(self._bounds) - 1

    def _items(self, epoch: int, index: int) -> np.ndarray:
        """Return the numbers of the items of one sub-batch, (B,)."""
        self._start_epoch(epoch)
        place = self._shuffle.run(index, 1)[0]
        chosen: np.ndarray = self._order[self._bounds[place] : self._bounds[place + 1]]
        return chosen

    def _start_epoch(self, epoch: int) -> None:
        """Shuffle the items, sort them by length (equal lengths stay shuffled), and cut them into sub-batches."""
        if epoch == self._epoch:
            return
        count = self._lengths.shape[1]
        everything = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
        # The purposes "pairs" and "draws" key the random numbers, so they stay: other words would change the batches.
        shuffled = generator(self._seed, "pairs", self._name, epoch).permutation(everything)
        by_length, bounds = self._cut(self._lengths[:, shuffled])
        order = shuffled[by_length]
        # The sub-batches are shuffled too; otherwise an epoch would go from short to long items.
        self._shuffle = Permutation(len(bounds) - 1, generator(self._seed, "draws", self._name, epoch))
        self._epoch, self._order, self._bounds = epoch, order, bounds

    def _cut(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sort items of ``lengths`` (sides, n); return their order, (n,), and the bounds of the sub-batches in it."""
        rows = lengths.sum(axis=0, dtype=np.uint16)
        order = np.argsort(rows, kind="stable")
        return order, cut_by_tokens(rows[order], self._sub_batch_tokens)


class DocumentSource(SortedSource):
    """Documents of one language, those of more than ``length`` tokens in pieces, each a sequence by itself.

    Raises DataError if the corpus has none.
    """

    def __init__(
        self, corpus: Corpus, language: int, length: int, sub_batch_tokens: int, seed: int, special: SpecialIds
    ) -> None:
        self.sentences = len(corpus)
        self._corpus, self._language, self._special = corpus, language, special
        self._begins, ends = corpus.document_pieces(length - 1)
        if not len(ends):
            raise DataError(f"{corpus.name}: it has no document with text")
        super().__init__(corpus.name, (ends - self._begins + 1).astype(np.uint16)[None], sub_batch_tokens, seed)

    def sequences(self, epoch: int, index: int) -> SequenceBatch:
        """Return (B, T) tokens, ``</s> .. <pad> ..``, with B * T <= sub_batch_tokens."""
        items = self._items(epoch, index)
        begins = self._begins[items]
        pieces = self._corpus.spans(begins, begins + self._lengths[0, items] - 1)
        return sentence_sequences(pieces, self._language, self._special)


class PairSource(SortedSource):
    """Sentence pairs of similar length, as many as fit into ``sub_batch_tokens`` with their padding.

    Leaves out pairs with a side longer than ``max_length``. Raises DataError if none is left.
    """

    def __init__(
        self,
        sides: tuple[Corpus, Corpus],
        languages: Sequence[int],
        sub_batch_tokens: int,
        max_length: int,
        seed: int,
        special: SpecialIds = XLM_IDS,
    ) -> None:
        self._sides, self._languages, self._special = sides, languages, special
        self._pairs, lengths = _usable_pairs(sides, max_length)
        super().__init__(sides[0].name, lengths, sub_batch_tokens, seed)
        self.sentences = len(self._pairs)
        if self.sentences == 0:
            raise DataError(
                f"{sides[0].name}: none of {len(sides[0])} pairs is within data.max_sentence_length={max_length} tokens"
            )

    def sequences(self, epoch: int, index: int) -> SequenceBatch:
        """Return (B, T) tokens with B * T <= sub_batch_tokens."""
        first, second = self._sentences(epoch, index)
        return pair_sequences(first, second, self._languages, self._special)

    def _sentences(self, epoch: int, index: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return both sides of one sub-batch."""
        chosen = self._pairs[self._items(epoch, index)].tolist()
        return self._sides[0].sentences(chosen), self._sides[1].sentences(chosen)


class Seq2SeqSource(PairSource):
    """Sentences with their targets, as many as fit into ``sub_batch_tokens`` with the padding of both sides.

    Arguments and errors as :class:`PairSource`'s; for denoising and back-translation, both sides are the same corpus.
    """

    def sides(self, epoch: int, index: int) -> tuple[SequenceBatch, SequenceBatch]:
        """Return the sources (B, S) and the targets (B, T) of one sub-batch, with B * (S + T) <= sub_batch_tokens."""
        sides = zip(self._sentences(epoch, index), self._languages)
        source, target = (sentence_sequences(*side, self._special) for side in sides)
        return source, target

    def _cut(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sort by the target's length, then by the source's: up and down in turn, so that neighbours are alike."""
        source, target = lengths.astype(np.int64)
        order = np.lexsort((np.where(target % 2, source, -source), target))
        return order, cut_both_by_tokens(lengths[:, order], self._sub_batch_tokens)


def _usable_pairs(sides: tuple[Corpus, Corpus], max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices (n,) of pairs whose sides have 1 to ``max_length`` tokens, and their lengths (2, n).

    The lengths include both delimiters.
    """
    pairs, lengths = [np.empty(0, np.int32)], [np.empty((2, 0), np.uint16)]
    count = len(sides[0])
    for start in range(0, count, _CHUNK_PAIRS):
        chunk = slice(start, start + _CHUNK_PAIRS + 1)
        a, b = (np.diff(side.offsets[chunk]) - 1 for side in sides)
        usable = np.flatnonzero((np.maximum(a, b) <= max_length) & (np.minimum(a, b) > 0))
        pairs.append((start + usable).astype(np.int32 if count < 2**31 else np.int64))
        lengths.append((np.stack([a, b])[:, usable] + 2).astype(np.uint16))
    return np.concatenate(pairs), np.concatenate(lengths, axis=1)


def cut_by_tokens(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Cut ascending ``lengths`` (n,) into runs with count * longest <= ``budget``; return the runs' bounds, int64.

    A run has at least one item, even if it exceeds the budget.
    """
    bounds, start = [np.zeros(1, dtype=np.int64)], 0
    while start < len(lengths):
        count = max(1, min(budget // int(lengths[start]), len(lengths) - start))
        equal = int(np.searchsorted(lengths, lengths[start], side="right")) - start
        if equal >= count:  # all runs of one length in one operation: there may be millions
            runs = start + np.arange(count, equal + 1, count)
        else:
            longest = int(lengths[start + count - 1])
            runs = np.array([start + max(1, min(count, budget // longest))])
        bounds.append(runs)
        start = int(runs[-1])
    return np.concatenate(bounds)


def cut_both_by_tokens(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Cut pairs of ``lengths`` (2, n) into runs with count * (longest first + longest second side) <= ``budget``.

    Returns the runs' bounds, int64. A run has at least one pair, even if it exceeds the budget.
    """
    bounds = [0]
    while bounds[-1] < lengths.shape[1]:
        start = bounds[-1]
        most = max(1, budget // int(lengths[:, start].sum()))
        longest = np.maximum.accumulate(lengths[:, start : start + most].astype(np.int64), axis=1).sum(axis=0)
        fits = longest * np.arange(1, len(longest) + 1) <= budget
        bounds.append(start + max(1, int(fits.sum())))
    return np.array(bounds, dtype=np.int64)
