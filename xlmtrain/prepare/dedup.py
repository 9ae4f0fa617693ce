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
        found = [np.empty(0, DIGEST_DTYPE)]
        for raw, number, sides in shards:
            if language in sides:
                found.append(read_digests(store.path("shard", raw), number, language))
        digests = np.unique(np.concatenate(found))
        digests[digests != NO_DIGEST].tofile(out / f"{language}.digests")
    return {}


def is_held_out(held_out: Path, language: str, digests: np.ndarray) -> np.ndarray:
    """Return which of ``digests`` (n,) are in the held-out text, (n,) bool."""
    return np.isin(digests, np.fromfile(held_out / f"{language}.digests", DIGEST_DTYPE))


def find_duplicates(
    store: ArtifactStore, out: Path, shards: list[list[Any]], languages: list[str], lines: int
) -> dict[str, Any]:
    """Write for each shard (raw key, shard number) of a corpus the indices of lines that repeat an earlier line.

    ``lines``: in all shards together. A pair repeats another if both sides do.
    """
    bits = max(lines // DIGESTS_PER_RANGE, 1).bit_length()
    repeated = [[np.empty(0, np.int32)] for _ in shards]
    for high in range(1 << bits):
        # Digests that begin with the same bits, with shard and line of each, in the order of the text.
        digests, owners, lines_of = [], [], []
        for owner, (raw, number) in enumerate(shards):
            found = _line_digests(store.path("shard", raw), number, languages)
            chosen = np.flatnonzero((found >> np.uint64(64 - bits) == high) & (found != NO_DIGEST))
            digests.append(found[chosen])
            owners.append(np.full(len(chosen), owner, np.int32))
            lines_of.append(chosen.astype(np.int32))
        again = _repetitions(np.concatenate(digests))
        present, begins = np.unique(np.concatenate(owners)[again], return_index=True)
        for owner, found in zip(present.tolist(), np.split(np.concatenate(lines_of)[again], begins[1:])):
            repeated[owner].append(found)
    for (raw, number), found_lines in zip(shards, repeated):
        np.sort(np.concatenate(found_lines)).tofile(_drop_file(out, raw, number))
    return {}


def _repetitions(digests: np.ndarray) -> np.ndarray:
    """Return the indices of digests that occurred before, sorted."""
    order = np.argsort(digests, kind="stable")
    return np.sort(order[1:][digests[order[1:]] == digests[order[:-1]]])


def _line_digests(raw: Path, number: int, languages: Sequence[str]) -> np.ndarray:
    """Return one digest per line, for a pair one of both sides."""
    first, *second = (read_digests(raw, number, language) for language in languages)
    if not second:
        return first
    blank = (first == NO_DIGEST) | (second[0] == NO_DIGEST)
    return np.where(blank, NO_DIGEST, first * _SIDE_MULTIPLIER + second[0])


def read_duplicates(duplicates: Path, raw: str, shard: int) -> np.ndarray:
    """Return the lines of a shard that are duplicates: sorted int32 indices, from 0."""
    return np.fromfile(_drop_file(duplicates, raw, shard), np.int32)


def _drop_file(duplicates: Path, raw: str, shard: int) -> Path:
    return duplicates / f"{raw}.{shard:05d}"
