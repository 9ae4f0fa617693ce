"""Randomness keyed by what it is for, never drawn from a generator that moves along.

Each choice has a generator of its own, made from (seed, purpose, indices). So it is the same whatever was drawn
before it, on whichever process, and a resumed run has no generator to restore.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *index: int | str) -> np.random.Generator:
    """The random generator of one ``purpose`` at one place, e.g. ``generator(0, "mask", "mlm.en", epoch, index)``."""
    return np.random.default_rng(_key(seed, purpose, index))


def torch_seed(seed: int, purpose: str, *index: int | str) -> int:
    """A seed for torch's generators, 63 bits, keyed like :func:`generator`."""
    return int(np.random.SeedSequence(_key(seed, purpose, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _key(seed: int, purpose: str, index: tuple[int | str, ...]) -> np.ndarray | list[int]:
    # SeedSequence wants integers; crc32 of a name is stable over processes and versions, unlike hash().
    numbers = [seed] + [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in (purpose, *index)]
    try:
        return np.array(numbers, dtype=np.uint32)  # the same to SeedSequence, in half of the time
    except OverflowError:
        return numbers
