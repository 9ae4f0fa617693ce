"""A random permutation computed on the fly, without an array of the corpus's size.

A Feistel network permutes the next even power of two, and is applied again until the result lies inside the range
(cycle walking, Black & Rogaway 2002, "Ciphers with arbitrary finite domains"). Any position of any epoch costs the
same, so a resumed run replays nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_ROUNDS = 6
_TABLE_BITS = 14
_CHUNK = 2048


class Permutation:
    """Pseudo-random permutation of [0, ``size``), keyed by ``rng``."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        keys = rng.integers(0, 2**63, size=_ROUNDS, dtype=np.uint64)
        self._rounds = [_round_function(key, self._half) for key in keys]
        self._begin, self._chunk = 0, np.empty(0, dtype=np.int64)

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """Return the images of ``index`` (any shape, values in [0, size)), int64."""
        result = self._feistel(index.astype(np.int64))
        while len(outside := np.flatnonzero(result >= self._size)):
            result.flat[outside] = self._feistel(result.flat[outside])
        return result

    def run(self, begin: int, count: int) -> np.ndarray:
        """Return the images of ``begin`` to ``begin + count - 1``, modulo size.

        A larger chunk is computed and cached, because callers mostly ask for the next positions.
        """
        place = begin - self._begin
        if not 0 <= place <= len(self._chunk) - count:
            index = np.arange(begin, begin + max(count, _CHUNK)) % self._size
            self._begin, self._chunk, place = begin, self(index), 0
        return self._chunk[place : place + count]

    def _feistel(self, value: np.ndarray) -> np.ndarray:
        """Apply the network to values of ``2 * half`` bits: a bijection for any round function."""
        left, right = value >> self._half, value & (2**self._half - 1)
        for round_function in self._rounds:
            left, right = right, left ^ round_function(right)
        return (left << self._half) | right


def _round_function(key: np.uint64, bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a keyed function of [0, 2^bits) into itself."""

    def mixed(value: np.ndarray) -> np.ndarray:
        return (_mix(value.astype(np.uint64) + key) & np.uint64(2**bits - 1)).astype(np.int64)

    # A table of all values, where it is small: a look-up takes a fifth of the time.
    return mixed(np.arange(2**bits)).take if bits <= _TABLE_BITS else mixed


def _mix(value: np.ndarray) -> np.ndarray:
    """Apply the finalizer of splitmix64 (Steele et al. 2014); multiplications overflow on purpose."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
