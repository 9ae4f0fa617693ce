"""A shuffle that is a function: position -> item, without an array of the corpus's size.

A Feistel network over the next even power of two, walked until it lands inside the range (Black & Rogaway 2002,
"Ciphers with arbitrary finite domains", cycle walking): any position of any epoch costs the same, so resuming does not
replay anything and memory does not grow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_ROUNDS = 6
_TABLE_BITS = 14
_AT_ONCE = 2048


class Permutation:
    """The permutation of [0, ``size``) that ``rng`` keys."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        keys = rng.integers(0, 2**63, size=_ROUNDS, dtype=np.uint64)
        self._rounds = [_round(key, self._half) for key in keys]
        self._begin, self._run = 0, np.empty(0, dtype=np.int64)

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """Where ``index`` (any shape, values in [0, size)) goes, int64."""
        result = self._feistel(index.astype(np.int64))
        while len(outside := np.flatnonzero(result >= self._size)):
            result.flat[outside] = self._feistel(result.flat[outside])
        return result

    def run(self, begin: int, count: int) -> np.ndarray:
        """Where the positions ``begin`` to ``begin + count - 1`` go, those after the last being the first again.

        Many are made at once and kept, since what is asked for next is mostly what comes next.
        """
        place = begin - self._begin
        if not 0 <= place <= len(self._run) - count:
            index = np.arange(begin, begin + max(count, _AT_ONCE)) % self._size
            self._begin, self._run, place = begin, self(index), 0
        return self._run[place : place + count]

    def _feistel(self, value: np.ndarray) -> np.ndarray:
        """One pass over values of ``2 * half`` bits: a bijection for any round function."""
        left, right = value >> self._half, value & (2**self._half - 1)
        for mixed in self._rounds:
            left, right = right, left ^ mixed(right)
        return (left << self._half) | right


def _round(key: np.uint64, bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function of [0, 2^bits) into itself, the same for the same key."""

    def mixed(value: np.ndarray) -> np.ndarray:
        return (_mix(value.astype(np.uint64) + key) & np.uint64(2**bits - 1)).astype(np.int64)

    # All of its values if they are few: looking them up takes a fifth of the time.
    return mixed(np.arange(2**bits)).take if bits <= _TABLE_BITS else mixed


def _mix(value: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele et al. 2014); multiplication wraps around on purpose."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
