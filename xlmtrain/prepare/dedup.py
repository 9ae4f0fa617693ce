"""Find repeated lines, within a corpus or between training and held-out text, by their digests.

Memory does not grow with the corpus: the digests of the held-out text are held (8 bytes a line), those of a corpus are
compared one range of digests at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.shard_raw import DIGEST_DTYPE, NO_DIGEST, read_digests

DIGESTS_PER_RANGE = 1 << 22
"""Upper bound, roughly, of the digests compared together."""

# Multiplier for the first side of a pair, so that swapping the sides changes the digest of the pair.
_SIDE_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def collect_held_out(store: ArtifactStore, out: Path, languages: list[str], shards: list[list[Any]]) -> dict[str, Any]:
    """Write ``{language}.digests``, sorted, of all lines in ``shards``: (raw key, shard number, languages)."""
    for language in languages:
        found = [
            read_digests(store.path("shard", raw), number, language)
            for raw, number, sides in shards
            if language in sides
        ]
        digests = np.unique(np.concatenate([np.empty(0, DIGEST_DTYPE), *found]))
        digests[digests != NO_DIGEST].tofile(out / f"{language}.digests")
    return {}


def is_held_out(held_out: Path, language: str, digests: np.ndarray) -> np.ndarray:
    """Return which of ``digests`` (n,) are in the held-out text, (n,) bool."""
    known = np.fromfile(held_out / f"{language}.digests", DIGEST_DTYPE)
    if not len(known):
        return np.zeros(len(digests), bool)
    found: np.ndarray = known[np.minimum(np.searchsorted(known, digests), len(known) - 1)] == digests
    return found


def find_duplicates(
    store: ArtifactStore, out: Path, shards: list[list[Any]], languages: list[str], lines: int
) -> dict[str, Any]:
    """Write for each shard (raw key, shard number) of a corpus the indices of lines that repeat an earlier line.

    ``lines``: in all shards together. A pair repeats another if both sides do.
    """
    bits = max(lines // DIGESTS_PER_RANGE, 1).bit_length()
    repeated: list[list[np.ndarray]] = [[] for _ in shards]
    for high in range(1 << bits):
        # Digests that begin with the same bits, with shard and line of each, in the order of the text.
        digests, owners, lines_of = [], [], []
        for owner, shard in enumerate(shards):
            found = _line_digests(store, shard, languages)
            chosen = np.flatnonzero((found >> np.uint64(64 - bits) == high) & (found != NO_DIGEST))
            digests.append(found[chosen])
            owners.append(np.full(len(chosen), owner, np.int32))
            lines_of.append(chosen.astype(np.int32))
        for owner, some in zip(*_repetitions(*map(np.concatenate, (digests, owners, lines_of)))):
            repeated[owner].append(some)
    for shard, found_lines in zip(shards, repeated):
        np.sort(np.concatenate([np.empty(0, np.int32), *found_lines])).tofile(_drop_file(out, *shard))
    return {}


def _repetitions(digests: np.ndarray, owners: np.ndarray, lines: np.ndarray) -> tuple[list[int], list[np.ndarray]]:
    """Find entries whose digest occurred before: the shards that have any, and the lines in each."""
    order = np.argsort(digests, kind="stable")
    again = np.sort(order[1:][digests[order[1:]] == digests[order[:-1]]])
    present, begins = np.unique(owners[again], return_index=True)
    return present.tolist(), np.split(lines[again], begins[1:]) if len(present) else []


def _line_digests(store: ArtifactStore, shard: list[Any], languages: Sequence[str]) -> np.ndarray:
    """Return one digest per line, for a pair one of both sides."""
    raw, number = shard
    sides = [read_digests(store.path("shard", raw), number, language) for language in languages]
    if len(sides) == 1:
        return sides[0]
    blank = (sides[0] == NO_DIGEST) | (sides[1] == NO_DIGEST)
    return np.where(blank, NO_DIGEST, sides[0] * _SIDE_MULTIPLIER + sides[1])


def read_duplicates(duplicates: Path, raw: str, shard: int) -> np.ndarray:
    """Return the lines of a shard that are duplicates: sorted int32 indices, from 0."""
    return np.fromfile(_drop_file(duplicates, raw, shard), np.int32)


def _drop_file(duplicates: Path, raw: str, shard: int) -> Path:
    return duplicates / f"{raw}.{shard:05d}"
