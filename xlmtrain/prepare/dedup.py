"""Lines that are there twice: in training and held-out text, or in one corpus. Lines are compared by their digests.

Memory does not grow with the corpus: the held-out text's digests are kept (8 bytes a line), those of a corpus are
compared a range of digests at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.shard_raw import DIGEST_DTYPE, NO_DIGEST, read_digests

AT_ONCE = 1 << 22
"""About how many digests are compared at once, at most."""

# Mixes the digests of a pair's sides, so that a pair and its mirror image differ.
_ODD = np.uint64(0x9E3779B97F4A7C15)


def collect_held_out(work: ArtifactStore, out: Path, languages: list[str], shards: list[list[Any]]) -> dict[str, Any]:
    """Write ``{language}.digests``, rising, of all lines in ``shards``: part, number, and languages of each."""
    for language in languages:
        found = [
            read_digests(work.part("cut", part), number, language)
            for part, number, sides in shards
            if language in sides
        ]
        digests = np.unique(np.concatenate([np.empty(0, DIGEST_DTYPE), *found]))
        digests[digests != NO_DIGEST].tofile(out / f"{language}.digests")
    return {}


def held_out(part: Path, language: str, digests: np.ndarray) -> np.ndarray:
    """Which of ``digests`` are in the held-out text, (n,) bool."""
    known = np.fromfile(part / f"{language}.digests", DIGEST_DTYPE)
    if not len(known):
        return np.zeros(len(digests), bool)
    return known[np.minimum(np.searchsorted(known, digests), len(known) - 1)] == digests


def find_duplicates(
    work: ArtifactStore, out: Path, shards: list[list[Any]], languages: list[str], lines: int
) -> dict[str, Any]:
    """Write, for each of a corpus's ``shards`` (part, number), which of its lines are the same as an earlier line.

    ``lines``: of them all. A pair is the same as another if both sides are.
    """
    bits = max(lines // AT_ONCE, 1).bit_length()
    repeated: list[list[np.ndarray]] = [[] for _ in shards]
    for high in range(1 << bits):
        # Of the digests that begin with the same bits: of which shard they are, and which line of it, in order.
        digests, owners, places = [], [], []
        for owner, shard in enumerate(shards):
            mine = _line_digests(work, shard, languages)
            chosen = np.flatnonzero((mine >> np.uint64(64 - bits) == high) & (mine != NO_DIGEST))
            digests.append(mine[chosen])
            owners.append(np.full(len(chosen), owner, np.int32))
            places.append(chosen.astype(np.int32))
        for owner, place in zip(*_later(np.concatenate(digests), np.concatenate(owners), np.concatenate(places))):
            repeated[owner].append(place)
    for shard, places in zip(shards, repeated):
        np.sort(np.concatenate([np.empty(0, np.int32), *places])).tofile(drop_file(out, *shard))
    return {}


def _later(digests: np.ndarray, owners: np.ndarray, places: np.ndarray) -> tuple[list[int], list[np.ndarray]]:
    """Of entries in order: those whose digest occurred before, as owners and the places of each."""
    order = np.argsort(digests, kind="stable")
    again = np.sort(order[1:][digests[order[1:]] == digests[order[:-1]]])
    present, begins = np.unique(owners[again], return_index=True)
    return present.tolist(), np.split(places[again], begins[1:]) if len(present) else []


def _line_digests(work: ArtifactStore, shard: list[Any], languages: Sequence[str]) -> np.ndarray:
    """One digest a line; that of a pair is made from both sides'."""
    part, number = shard
    sides = [read_digests(work.part("cut", part), number, language) for language in languages]
    if len(sides) == 1:
        return sides[0]
    return np.where((sides[0] == NO_DIGEST) | (sides[1] == NO_DIGEST), NO_DIGEST, sides[0] * _ODD + sides[1])


def drop_file(part: Path, cut_key: str, shard: int) -> Path:
    """Which lines of a shard are duplicates: rising int32 numbers, from 0."""
    return part / f"{cut_key}.{shard:05d}"


def read_duplicates(part: Path, cut_key: str, shard: int) -> np.ndarray:
    """See :func:`drop_file`."""
    return np.fromfile(drop_file(part, cut_key, shard), np.int32)
