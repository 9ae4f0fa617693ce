"""Keyed randomness: each random choice has a generator made from (seed, purpose, indices).

So a choice does not depend on earlier ones nor on the process, and a resumed run has no generator state to restore.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *index: int | str) -> np.random.Generator:
    """Return the generator of one ``purpose`` at one place, e.g. ``generator(0, "mask", "mlm.en", epoch, number)``."""
    return np.random.default_rng(_key(seed, purpose, index))


def torch_seed(seed: int, purpose: str, *index: int | str) -> int:
    """Return a 63-bit seed for torch's generators, keyed like :func:`generator`."""
    return int(np.random.SeedSequence(_key(seed, purpose, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _key(seed: int, purpose: str, index: tuple[int | str, ...]) -> np.ndarray | list[int]:
    # SeedSequence needs integers; crc32 of a name is the same in all processes and versions, unlike hash().
    numbers = [seed] + [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in (purpose, *index)]
    try:
        return np.array(numbers, dtype=np.uint32)  # the same for SeedSequence, in half the time
    except OverflowError:
        return numbers
