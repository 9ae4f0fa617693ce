"""Learn byte-pair codes from word counts (Sennrich et al. 2016), in about 250 bytes of memory per distinct word.

All words are concatenated in one array with one position per character. A symbol of several characters has its id at
its first position and the negated id at its last, so both neighbours of a symbol are found without linked lists. All
occurrences of a pair of symbols are merged together, with array operations.

A pair's count never rises after the merge that created the pair, as each string is created by one merge only. So only
pairs above a threshold are tracked. When none is left, all pairs are counted again with a lower threshold. Memory thus
holds the pairs that are merged soon, whatever the size of the text.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from xlmtrain.text.bpe import END_OF_WORD, Code

COUNT_RANGE = 4
"""Pairs are tracked down to the largest count divided by this."""

_WORDS_PER_BLOCK = 1 << 16
_POSITIONS_PER_BLOCK = 1 << 20
_BUCKET_BITS = 20
_CHARACTERS = 0x110000
_BOUNDARY = 1  # the symbol before the first word


def learn_bpe(
    word_counts: Iterable[tuple[str, int]], merges: int, progress: Callable[[int], object] = lambda learned: None
) -> list[Code]:
    """Learn ``merges`` codes, fewer if every word becomes one symbol. ``word_counts``: distinct words with counts.

    The most frequent pair is merged first, of equally frequent ones the first by code points, so the result depends on
    the counts only. Overlapping occurrences (``a a a``) all count and are merged from the left. ``progress`` is called
    with the number of codes learned so far.
    """
    learner = _Learner(word_counts, merges)
    codes: list[Code] = []
    while len(codes) < merges and (code := learner.next()) is not None:
        codes.append(code)
        progress(len(codes))
    return codes


class _Learner:
    """Array state of the training. P positions (characters of all words), W distinct words.

    ``_symbols`` (P,) int32: symbol ids as described above. ``_words`` (P,) int32: the word of each position.
    ``_word_counts`` (W,) int64. Lists by symbol id: ``_strings``, ``_lengths`` (characters), ``_final`` (ends a word).

    A pair is one integer, left id * 2^32 + right id. Pairs of at least ``_threshold`` occurrences are tracked:
    ``_counts`` is exact, ``_positions_of`` holds sorted positions of the left symbol (some outdated), ``_heap`` upper
    bounds.
    """

    def __init__(self, word_counts: Iterable[tuple[str, int]], merges: int) -> None:
        characters, self._words, self._word_counts = _concatenate_words(word_counts)
        present = np.zeros(2 * _CHARACTERS, bool)
        present[characters] = True
        found = np.flatnonzero(present)
        numbers = np.zeros(2 * _CHARACTERS, np.int32)
        numbers[found] = np.arange(len(found)) + _BOUNDARY + 1
        self._symbols = numbers[characters]
        self._symbols[0] = -_BOUNDARY
        first = _BOUNDARY + 1
        self._strings = [""] * first + [chr(c % _CHARACTERS) + END_OF_WORD * (c >= _CHARACTERS) for c in found.tolist()]
        self._lengths = np.ones(first + len(found) + merges, np.int32)
        self._final = np.ones(first + len(found) + merges, bool)
        self._final[first : first + len(found)] = found >= _CHARACTERS
        self._heap: list[tuple[int, str, str, int]] = []
        self._counts: dict[int, int] = {}
        self._positions_of: dict[int, np.ndarray] = {}
        self._threshold = np.iinfo(np.int64).max

    def next(self) -> Code | None:
        """Merge the most frequent pair everywhere and return its code; None when every word is one symbol."""
        while self._heap or self._threshold > 1:
            if not self._heap:
                self._lower_threshold()
                continue
            bound, left, right, pair = heapq.heappop(self._heap)
            count = self._counts.get(pair, 0)
            if count == -bound:
                self._merge(pair)
                return Code(left, right, count)
            if count >= self._threshold:
                heapq.heappush(self._heap, (-count, left, right, pair))
            else:
                self._untrack(pair)
        return None

    def _lower_threshold(self) -> None:
        """Count all pairs and track those of the lower threshold, if there are any.

        Pairs are counted by buckets first. A bucket's count is at least that of each of its pairs, so only the pairs of
        frequent buckets are sorted and counted one by one. Of a bucket of several pairs none may be frequent enough.
        """
        buckets = np.zeros(1 << _BUCKET_BITS)  # float64: exact up to 2^53
        for _, pairs, counts in self._all_pairs():
            buckets += np.bincount(_bucket(pairs), counts, 1 << _BUCKET_BITS)
        self._threshold = max(min(int(buckets.max()), self._threshold - 1) // COUNT_RANGE, 1)
        frequent = buckets >= self._threshold
        blocks, summed = [], []
        for positions, pairs, counts in self._all_pairs():
            kept = frequent[_bucket(pairs)]
            blocks.append(positions[kept].astype(np.int32))
            summed.append(_summed(pairs[kept], counts[kept]))
        pairs, counts = _summed(*map(np.concatenate, zip(*summed)))
        pairs, counts = pairs[counts >= self._threshold], counts[counts >= self._threshold]
        found = self._find(pairs, blocks) if len(pairs) else []
        for pair, count, positions in zip(pairs.tolist(), counts.tolist(), found):
            self._track(pair, count, positions)

    def _all_pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield positions, pairs and counts of all neighbouring symbols, a block of positions at a time."""
        for start in range(0, len(self._symbols), _POSITIONS_PER_BLOCK):
            positions = start + np.flatnonzero(self._symbols[start : start + _POSITIONS_PER_BLOCK] > 0)
            positions = positions[~self._final[self._symbols[positions]]]
            yield positions, self._pairs_at(positions), self._word_counts[self._words[positions]]

    def _pairs_at(self, positions: np.ndarray) -> np.ndarray:
        left = self._symbols[positions]
        return _pair(left, self._symbols[positions + self._lengths[left]])

    def _find(self, pairs: np.ndarray, blocks: list[np.ndarray]) -> list[np.ndarray]:
        """Return the positions of each of ``pairs``, which are sorted, among the positions ``blocks``."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for positions in blocks:
            every = self._pairs_at(positions)
            index = np.minimum(np.searchsorted(pairs, every), len(pairs) - 1)
            hits = pairs[index] == every
            found.append((index[hits].astype(np.int32), positions[hits]))
        ends = np.cumsum(sum(np.bincount(index, minlength=len(pairs)) for index, _ in found))
        filled = np.concatenate([[0], ends[:-1]])
        sorted_positions = np.empty(ends[-1], np.int32)
        for index, positions in found:
            order = np.argsort(index, kind="stable")
            index, positions = index[order], positions[order]
            begins = np.searchsorted(index, np.arange(len(pairs)))
            sorted_positions[filled[index] + np.arange(len(index)) - begins[index]] = positions
            filled += np.bincount(index, minlength=len(pairs))
        return np.split(sorted_positions, ends[:-1])

    def _merge(self, pair: int) -> None:
        left, right = pair >> 32, pair & 0xFFFFFFFF
        positions = self._current(self._positions_of[pair], left, right)
        merged, length = len(self._strings), self._lengths[left] + self._lengths[right]
        self._strings.append(self._strings[left] + self._strings[right])
        self._lengths[merged], self._final[merged] = length, self._final[right]
        weights = self._word_counts[self._words[positions]]
        before = np.abs(self._symbols[positions - 1])
        has_before = ~self._final[before]
        # Of two merged symbols side by side, the new pair belongs to the right one.
        has_after = np.concatenate([positions[1:] != positions[:-1] + length, [True]]) & ~self._final[right]
        starts, begins = positions[has_before], positions[has_after]
        after = self._symbols[begins + length]
        weights = np.concatenate([weights[has_before], weights[has_after]])

        old = np.concatenate([_pair(before[has_before], left), _pair(right, after)])
        for lost, count in zip(*map(np.ndarray.tolist, _summed(old, weights))):
            if lost in self._counts:
                self._counts[lost] -= count
        self._symbols[positions + self._lengths[left]] = 0
        self._symbols[positions] = merged
        self._symbols[positions + length - 1] = -merged
        self._untrack(pair)
        before = np.abs(self._symbols[starts - 1])
        new = np.concatenate([_pair(before, merged), _pair(merged, after)])
        self._track_new(np.concatenate([starts - self._lengths[before], begins]), new, weights)

    def _current(self, positions: np.ndarray, left: int, right: int) -> np.ndarray:
        """Return the positions that still hold the pair and do not overlap."""
        positions = positions[self._symbols[positions] == left]
        positions = positions[self._symbols[positions + self._lengths[left]] == right]
        if left == right and len(positions) > 1:
            index = np.arange(len(positions))
            begins = np.concatenate([[True], positions[1:] != positions[:-1] + self._lengths[left]])
            run = np.maximum.accumulate(np.where(begins, index, 0))
            positions = positions[(index - run) % 2 == 0]
        return positions

    def _track_new(self, positions: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> None:
        order = np.argsort(pairs, kind="stable")
        pairs, counts = pairs[order], weights[order]
        if not len(pairs):
            return
        begins = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
        sums = np.add.reduceat(counts, begins)
        ends = np.append(begins[1:], len(pairs))
        for i in np.flatnonzero(sums >= self._threshold).tolist():
            self._track(int(pairs[begins[i]]), int(sums[i]), positions[order[begins[i] : ends[i]]].astype(np.int32))

    def _track(self, pair: int, count: int, positions: np.ndarray) -> None:
        self._counts[pair], self._positions_of[pair] = count, positions
        heapq.heappush(self._heap, (-count, self._strings[pair >> 32], self._strings[pair & 0xFFFFFFFF], pair))

    def _untrack(self, pair: int) -> None:
        del self._counts[pair], self._positions_of[pair]


def _concatenate_words(word_counts: Iterable[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the characters of all words (P,) uint32, a word's last one offset by _CHARACTERS; the word of each
    position (P,) int32; the words' counts (W,) int64. Position 0 is a boundary."""
    characters = [np.zeros(1, np.uint32)]
    lengths = [np.ones(1, np.int32)]
    counts = [np.zeros(1, np.int64)]
    items = ((word, count) for word, count in word_counts if word and count > 0)
    while batch := list(itertools.islice(items, _WORDS_PER_BLOCK)):
        block = np.frombuffer("".join(word for word, _ in batch).encode("utf-32-le"), np.uint32).copy()
        lengths.append(np.array([len(word) for word, _ in batch], np.int32))
        block[np.cumsum(lengths[-1]) - 1] += _CHARACTERS
        characters.append(block)
        counts.append(np.array([count for _, count in batch], np.int64))
    words = np.repeat(np.arange(sum(map(len, lengths)), dtype=np.int32), np.concatenate(lengths))
    return np.concatenate(characters), words, np.concatenate(counts)


def _pair(left: np.ndarray | int, right: np.ndarray | int) -> np.ndarray:
    pair: np.ndarray = (np.asarray(left, np.int64) << 32) | right
    return pair


def _bucket(pairs: np.ndarray) -> np.ndarray:
    """Return a number below 2^_BUCKET_BITS for each pair (multiplicative hashing, with 2^64 / golden ratio)."""
    buckets: np.ndarray = (pairs.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _BUCKET_BITS)
    return buckets.view(np.int64)


def _summed(pairs: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct pairs, sorted, and the sum of the counts of each."""
    order = np.argsort(pairs, kind="stable")  # the fastest, as many are equal
    pairs, counts = pairs[order], counts[order]
    if not len(pairs):
        return pairs, counts
    begins = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
    return pairs[begins], np.add.reduceat(counts, begins)
