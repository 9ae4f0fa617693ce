"""Learning byte-pair codes from word counts (Sennrich et al. 2016), about 250 bytes of memory for a distinct word.

The words stand one after the other in an array, a *place* for each character. A symbol of several characters has its
id at its first place and minus its id at its last, so that both neighbours of any symbol are found without lists. A
pair of symbols is joined everywhere at once, with array operations.

A pair's count can only fall after the step that first made it, as each string is only ever made by one pair. So pairs
that are rarer than a threshold are forgotten: they cannot reach it again. When no pair of that count is left, all
are counted anew, with a lower threshold. What is known of pairs is then as much as is used soon, whatever the text.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from xlmtrain.text.bpe import END_OF_WORD, Code

COUNT_RANGE = 4
"""Pairs are known down to this part of the largest count."""

_WORDS_AT_ONCE = 1 << 16
_PLACES_AT_ONCE = 1 << 20
_CHARACTERS = 0x110000
_OUTSIDE = 1  # the symbol before the first word


def learn_bpe(
    word_counts: Iterable[tuple[str, int]], merges: int, progress: Callable[[int], object] = lambda learned: None
) -> list[Code]:
    """At most ``merges`` codes, fewer if no pair of symbols is left. ``word_counts``: distinct words.

    The most frequent pair comes first; pairs of equal count are ordered by their strings' code points, so the result
    depends on nothing but the counts. Overlapping occurrences (``a a a``) all count, and are joined from the left.
    ``progress`` is called with the number of codes learned so far.
    """
    learner = _Learner(word_counts, merges)
    codes: list[Code] = []
    while len(codes) < merges and (code := learner.next()) is not None:
        codes.append(code)
        progress(len(codes))
    return codes


class _Learner:
    """``_symbols``: (places,) int32; ``_words``: (places,) int32, whose character it is; ``_word_counts``: (words,).
    By symbol id: ``_strings``, ``_lengths`` in characters, ``_final``: ends a word.

    Pairs are named by one number, left id * 2^32 + right id. ``_counts`` and ``_places_of`` (of the left symbol,
    rising, some of them outdated) hold those of at least ``_threshold``; the heap an upper bound for each."""

    def __init__(self, word_counts: Iterable[tuple[str, int]], merges: int) -> None:
        characters, self._words, self._word_counts = _laid_out(word_counts)
        present = np.zeros(2 * _CHARACTERS, bool)
        present[characters] = True
        found = np.flatnonzero(present)
        numbers = np.zeros(2 * _CHARACTERS, np.int32)
        numbers[found] = np.arange(len(found)) + _OUTSIDE + 1
        self._symbols = numbers[characters]
        self._symbols[0] = -_OUTSIDE
        first = _OUTSIDE + 1
        self._strings = [""] * first + [chr(c % _CHARACTERS) + END_OF_WORD * (c >= _CHARACTERS) for c in found.tolist()]
        self._lengths = np.ones(first + len(found) + merges, np.int32)
        self._final = np.ones(first + len(found) + merges, bool)
        self._final[first : first + len(found)] = found >= _CHARACTERS
        self._heap: list[tuple[int, str, str, int]] = []
        self._counts: dict[int, int] = {}
        self._places_of: dict[int, np.ndarray] = {}
        self._threshold = np.iinfo(np.int64).max

    def next(self) -> Code | None:
        """Join the most frequent pair everywhere; None when every word is one symbol."""
        while self._heap or self._lower_threshold():
            bound, left, right, pair = heapq.heappop(self._heap)
            count = self._counts.get(pair, 0)
            if count == -bound:
                self._join(pair)
                return Code(left, right, count)
            if count >= self._threshold:
                heapq.heappush(self._heap, (-count, left, right, pair))
            else:
                self._forget(pair)
        return None

    def _lower_threshold(self) -> bool:
        """Count all pairs, and go on with the most frequent ones; False if there is no pair."""
        if self._threshold == 1:
            return False
        summed = [_summed(pairs, counts) for _, pairs, counts in self._all_pairs()]
        if not summed:
            return False
        pairs, counts = _summed(*map(np.concatenate, zip(*summed)))
        if not len(pairs):
            return False
        self._threshold = max(int(counts.max()) // COUNT_RANGE, 1)
        often = counts >= self._threshold
        for pair, count, places in zip(pairs[often].tolist(), counts[often].tolist(), self._find(pairs[often])):
            self._track(pair, count, places)
        return True

    def _all_pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Places, pairs and counts of all neighbours, some millions of places at a time."""
        for start in range(0, len(self._symbols), _PLACES_AT_ONCE):
            places = start + np.flatnonzero(self._symbols[start : start + _PLACES_AT_ONCE] > 0)
            places = places[~self._final[self._symbols[places]]]
            left = self._symbols[places]
            pairs = _pair(left, self._symbols[places + self._lengths[left]])
            yield places, pairs, self._word_counts[self._words[places]]

    def _find(self, pairs: np.ndarray) -> list[np.ndarray]:
        """The places of each of ``pairs``, which rise."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for places, every, _ in self._all_pairs():
            index = np.minimum(np.searchsorted(pairs, every), len(pairs) - 1)
            hits = pairs[index] == every
            found.append((index[hits].astype(np.int32), places[hits].astype(np.int32)))
        ends = np.cumsum(sum(np.bincount(index, minlength=len(pairs)) for index, _ in found))
        filled = np.concatenate([[0], ends[:-1]])
        sorted_places = np.empty(ends[-1], np.int32)
        for index, places in found:
            order = np.argsort(index, kind="stable")
            index, places = index[order], places[order]
            begins = np.searchsorted(index, np.arange(len(pairs)))
            sorted_places[filled[index] + np.arange(len(index)) - begins[index]] = places
            filled += np.bincount(index, minlength=len(pairs))
        return np.split(sorted_places, ends[:-1])

    def _join(self, pair: int) -> None:
        left, right = pair >> 32, pair & 0xFFFFFFFF
        places = self._current(self._places_of[pair], left, right)
        joined, length = len(self._strings), self._lengths[left] + self._lengths[right]
        self._strings.append(self._strings[left] + self._strings[right])
        self._lengths[joined], self._final[joined] = length, self._final[right]
        weights = self._word_counts[self._words[places]]
        rights = places + self._lengths[left]
        # Where two joined ones are neighbours, what is between them is seen from the right one only.
        last = np.concatenate([places[1:] != places[:-1] + length, [True]]) & ~self._final[right]

        _, old, old_weights = self._neighbours(places, rights, weights, last)
        for lost, count in zip(*map(np.ndarray.tolist, _summed(old, old_weights))):
            if lost in self._counts:
                self._counts[lost] -= count
        self._symbols[rights] = 0
        self._symbols[places] = joined
        self._symbols[places + length - 1] = -joined
        self._forget(pair)
        self._track_new(*self._neighbours(places, places, weights, last))

    def _current(self, places: np.ndarray, left: int, right: int) -> np.ndarray:
        """The places that still hold the pair, and do not overlap."""
        places = places[self._symbols[places] == left]
        places = places[self._symbols[places + self._lengths[left]] == right]
        if left == right and len(places) > 1:
            index = np.arange(len(places))
            begins = np.concatenate([[True], places[1:] != places[:-1] + self._lengths[left]])
            run = np.maximum.accumulate(np.where(begins, index, 0))
            places = places[(index - run) % 2 == 0]
        return places

    def _neighbours(
        self, lefts: np.ndarray, rights: np.ndarray, weights: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places, pairs and counts of the symbols at ``lefts`` with the ones before, and at ``rights`` with the ones
        after, where ``last``."""
        before = np.abs(self._symbols[lefts - 1])
        inside = ~self._final[before]
        before, after_before = before[inside], lefts[inside]
        rights = rights[last]
        here = self._symbols[rights]
        after = self._symbols[rights + self._lengths[here]]
        places = np.concatenate([after_before - self._lengths[before], rights])
        pairs = np.concatenate([_pair(before, self._symbols[after_before]), _pair(here, after)])
        return places, pairs, np.concatenate([weights[inside], weights[last]])

    def _track_new(self, places: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> None:
        order = np.argsort(pairs, kind="stable")
        pairs, counts = pairs[order], weights[order]
        if not len(pairs):
            return
        begins = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
        sums = np.add.reduceat(counts, begins)
        ends = np.append(begins[1:], len(pairs))
        for i in np.flatnonzero(sums >= self._threshold).tolist():
            self._track(int(pairs[begins[i]]), int(sums[i]), places[order[begins[i] : ends[i]]].astype(np.int32))

    def _track(self, pair: int, count: int, places: np.ndarray) -> None:
        self._counts[pair], self._places_of[pair] = count, places
        heapq.heappush(self._heap, (-count, self._strings[pair >> 32], self._strings[pair & 0xFFFFFFFF], pair))

    def _forget(self, pair: int) -> None:
        del self._counts[pair], self._places_of[pair]


def _laid_out(word_counts: Iterable[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The characters of all words after a place that belongs to none, uint32, a word's last one beyond Unicode; the
    word of each place, int32; the words' counts, int64."""
    characters = [np.zeros(1, np.uint32)]
    lengths = [np.ones(1, np.int32)]
    counts = [np.zeros(1, np.int64)]
    items = ((word, count) for word, count in word_counts if word and count > 0)
    while batch := list(itertools.islice(items, _WORDS_AT_ONCE)):
        block = np.frombuffer("".join(word for word, _ in batch).encode("utf-32-le"), np.uint32).copy()
        lengths.append(np.array([len(word) for word, _ in batch], np.int32))
        block[np.cumsum(lengths[-1]) - 1] += _CHARACTERS
        characters.append(block)
        counts.append(np.array([count for _, count in batch], np.int64))
    words = np.repeat(np.arange(sum(map(len, lengths)), dtype=np.int32), np.concatenate(lengths))
    return np.concatenate(characters), words, np.concatenate(counts)


def _pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left.astype(np.int64) << 32) | right


def _summed(pairs: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs, rising, and the sum of each one's counts."""
    order = np.argsort(pairs)
    pairs, counts = pairs[order], counts[order]
    if not len(pairs):
        return pairs, counts
    begins = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
    return pairs[begins], np.add.reduceat(counts, begins)
