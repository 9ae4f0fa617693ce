"""A shuffle that is a function: position -> item, without an array of the corpus's size.

A Feistel network over the next even power of two, walked until it lands inside the range (Black & Rogaway 2002,
"Ciphers with arbitrary finite domains", cycle walking): any position of any epoch costs the same, so resuming does not
replay anything and memory does not grow.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 6


def permute(index: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Where ``index`` (any shape, values in [0, size)) goes in the permutation of [0, size) that ``rng`` keys."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = rng.integers(0, 2**63, size=_ROUNDS, dtype=np.uint64)
    result = _feistel(index.astype(np.uint64), half, keys)
    while (outside := result >= size).any():
        result[outside] = _feistel(result[outside], half, keys)
    return result.astype(np.int64)


def _feistel(value: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    """One pass over values of ``2 * half`` bits: a bijection for any round function."""
    shift, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = value >> shift, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << shift) | right


def _mix(value: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele et al. 2014); multiplication wraps around on purpose."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
