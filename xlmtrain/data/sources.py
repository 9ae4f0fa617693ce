"""Where rows come from: running text of one language, or sentence pairs.

A source is an endless sequence of epochs of draws. ``rows(epoch, draw)`` is a pure function of the seed and its
arguments, so any process can make any draw, in any order, at the same cost.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from xlmtrain.data.dataset import Corpus
from xlmtrain.data.permutation import Permutation
from xlmtrain.data.sequences import Sequences, pair_sequences, stream_sequences, windows
from xlmtrain.errors import DataError
from xlmtrain.runtime.rng import generator

_PAIRS_AT_ONCE = 1 << 20


class Source(Protocol):
    """A text that draws are made from."""

    sentences: int

    def draws(self, epoch: int) -> int:
        """How many draws the epoch has."""
        ...

    def rows(self, epoch: int, draw: int) -> Sequences:
        """The rows of one draw."""
        ...


class StreamSource:
    """Running text of one language, cut into windows of ``length`` tokens, ``rows_per_draw`` to a draw.

    Each epoch cuts at another offset and visits every window once, in another order. Raises DataError if the text is
    shorter than a window.
    """

    def __init__(self, corpus: Corpus, language: int, length: int, rows_per_draw: int, seed: int) -> None:
        self.sentences = len(corpus)
        self._corpus, self._length = corpus, length
        self._rows_per_draw, self._seed = rows_per_draw, seed
        self._windows = len(corpus.ids) // length
        if self._windows == 0:
            raise DataError(
                f"{corpus.name}: {len(corpus.ids)} tokens, less than one sequence of data.sequence_length={length}"
            )
        # What all draws have in common.
        self._rows = stream_sequences(np.zeros((rows_per_draw, length), dtype=np.int64), language)
        self._epoch = -1

    def draws(self, epoch: int) -> int:
        """The same in every epoch."""
        return -(-self._windows // self._rows_per_draw)

    def rows(self, epoch: int, draw: int) -> Sequences:
        """(rows_per_draw, length) tokens; the last draw of an epoch is filled up with windows of its first."""
        self._arrange(epoch)
        window = self._order.run(draw * self._rows_per_draw, self._rows_per_draw)
        tokens = windows(self._corpus.ids, self._offset + window * self._length, self._length)
        return Sequences(tokens, self._rows.positions, self._rows.languages, self._rows.lengths)

    def _arrange(self, epoch: int) -> None:
        """Where the epoch cuts, and in which order it reads."""
        if epoch == self._epoch:
            return
        name = self._corpus.name
        self._offset = int(generator(self._seed, "offset", name, epoch).integers(self._length))
        self._order = Permutation(self._windows, generator(self._seed, "windows", name, epoch))
        self._epoch = epoch


class PairSource:
    """Sentence pairs of similar length, as many to a draw as fit into ``sub_batch_tokens`` with their padding.

    Leaves out pairs with a side longer than ``max_length``. Raises DataError if none is left.
    """

    def __init__(
        self,
        first: Corpus,
        second: Corpus,
        languages: tuple[int, int],
        sub_batch_tokens: int,
        max_length: int,
        seed: int,
    ) -> None:
        self._sides, self._languages = (first, second), languages
        self._sub_batch_tokens, self._seed = sub_batch_tokens, seed
        # These two and an epoch's order grow with the corpus: 10 bytes a pair.
        self._pairs, self._row_lengths = _usable_pairs(first, second, max_length)
        self.sentences = len(self._pairs)
        if self.sentences == 0:
            raise DataError(
                f"{first.name}: none of {len(first)} pairs is within data.max_sentence_length={max_length} tokens"
            )
        self._epoch = -1

    def draws(self, epoch: int) -> int:
        """Depends a little on the epoch's shuffle."""
        self._arrange(epoch)
        return len(self._bounds) - 1

    def rows(self, epoch: int, draw: int) -> Sequences:
        """(B, T) tokens with B * T <= sub_batch_tokens."""
        self._arrange(epoch)
        place = self._shuffle.run(draw, 1)[0]
        start, end = self._bounds[place], self._bounds[place + 1]
        chosen = self._pairs[self._order[start:end]]
        sides = [side.sentences(chosen.tolist()) for side in self._sides]
        return pair_sequences(sides[0], sides[1], self._languages)

    def _arrange(self, epoch: int) -> None:
        """Shuffle the pairs, sort them by length (pairs of one length stay shuffled), cut them into draws."""
        if epoch == self._epoch:
            return
        places = np.arange(self.sentences, dtype=self._pairs.dtype)
        shuffled = generator(self._seed, "pairs", self._sides[0].name, epoch).permutation(places)
        order = shuffled[np.argsort(self._row_lengths[shuffled], kind="stable")]
        bounds = cut_by_tokens(self._row_lengths[order], self._sub_batch_tokens)
        # Which draw comes when is shuffled apart, or an epoch would go from short pairs to long ones.
        self._shuffle = Permutation(len(bounds) - 1, generator(self._seed, "draws", self._sides[0].name, epoch))
        self._epoch, self._order, self._bounds = epoch, order, bounds


def _usable_pairs(first: Corpus, second: Corpus, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs with both sides of 1 to ``max_length`` tokens, and the lengths of their TLM rows; read piece by piece."""
    pairs, row_lengths = [np.empty(0, np.int32)], [np.empty(0, np.uint16)]
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        piece = slice(start, start + _PAIRS_AT_ONCE + 1)
        a, b = (np.diff(side.offsets[piece]) - 1 for side in (first, second))
        usable = np.flatnonzero((np.maximum(a, b) <= max_length) & (np.minimum(a, b) > 0))
        pairs.append((start + usable).astype(np.int32 if len(first) < 2**31 else np.int64))
        row_lengths.append((a + b + 4)[usable].astype(np.uint16))  # each side has two delimiters
    return np.concatenate(pairs), np.concatenate(row_lengths)


def cut_by_tokens(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Cut rising ``lengths`` (n,) into runs whose count times longest is within ``budget``; the runs' bounds.

    A run has at least one item even if that is longer than the budget.
    """
    bounds, start = [np.zeros(1, dtype=np.int64)], 0
    while start < len(lengths):
        length, left = int(lengths[start]), len(lengths) - start
        at_once = max(1, min(budget // length, left))
        alike = int(np.searchsorted(lengths, lengths[start], side="right")) - start
        if alike >= at_once:  # runs of items of one length, all at once: there may be millions
            runs = start + np.arange(at_once, alike + 1, at_once)
        else:
            longest = int(lengths[start + at_once - 1])
            runs = np.array([start + max(1, min(at_once, budget // longest))])
        bounds.append(runs)
        start = int(runs[-1])
    return np.concatenate(bounds)
