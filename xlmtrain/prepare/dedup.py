"""Find repeated lines, within a corpus or between training and held-out text, by the digests of their tokens.

So lines are compared as they are trained on: normalized and tokenized, before BPE. Memory does not grow with the
corpus: the digests of the held-out text are held (8 bytes a line), those of a corpus are compared a range at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.token_shards import DIGEST_DTYPE, read_digests

DIGESTS_PER_RANGE = 1 << 22
"""Upper bound, roughly, of the digests compared together."""

# Multiplier for the first side of a pair, so that swapping the sides changes the digest of the pair.
_SIDE_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def collect_held_out(store: ArtifactStore, out: Path, languages: list[str], shards: list[list[Any]]) -> dict[str, Any]:
    """Write ``{language}.digests``, sorted, of all sentences in ``shards``: (tokenize key, languages)."""
    for language in languages:
        found = [np.empty(0, DIGEST_DTYPE)]
        for tokens, sides in shards:
            if language in sides:
                found.append(read_digests(store.path("tokenize", tokens), language))
        np.unique(np.concatenate(found)).tofile(out / f"{language}.digests")
    return {}


def is_held_out(held_out: Path, language: str, digests: np.ndarray) -> np.ndarray:
    """Return which of ``digests`` (n,) are in the held-out text, (n,) bool."""
    return np.isin(digests, np.fromfile(held_out / f"{language}.digests", DIGEST_DTYPE))


def find_duplicates(
    store: ArtifactStore, out: Path, shards: list[str], languages: list[str], lines: int
) -> dict[str, Any]:
    """Write for each shard (tokenize key) of a corpus the indices of sentences that repeat an earlier one.

    ``lines``: in all shards together. A pair repeats another if both sides do.
    """
    bits = max(lines // DIGESTS_PER_RANGE, 1).bit_length()
    repeated = [[np.empty(0, np.int32)] for _ in shards]
    for high in range(1 << bits):
        # Digests that begin with the same bits, with shard and line of each, in the order of the text.
        digests, owners, lines_of = [], [], []
        for owner, tokens in enumerate(shards):
            found = _line_digests(store.path("tokenize", tokens), languages)
            chosen = np.flatnonzero(found >> np.uint64(64 - bits) == high)
            digests.append(found[chosen])
            owners.append(np.full(len(chosen), owner, np.int32))
            lines_of.append(chosen.astype(np.int32))
        again = _repetitions(np.concatenate(digests))
        present, begins = np.unique(np.concatenate(owners)[again], return_index=True)
        for owner, found in zip(present.tolist(), np.split(np.concatenate(lines_of)[again], begins[1:])):
            repeated[owner].append(found)
    for tokens, found_lines in zip(shards, repeated):
        np.sort(np.concatenate(found_lines)).tofile(out / tokens)
    return {}


def _repetitions(digests: np.ndarray) -> np.ndarray:
    """Return the indices of digests that occurred before, sorted."""
    order = np.argsort(digests, kind="stable")
    return np.sort(order[1:][digests[order[1:]] == digests[order[:-1]]])


def _line_digests(tokens: Path, languages: Sequence[str]) -> np.ndarray:
    """Return one digest per sentence, for a pair one of both sides."""
    first, *second = (read_digests(tokens, language) for language in languages)
    return first * _SIDE_MULTIPLIER + second[0] if second else first


def read_duplicates(duplicates: Path, tokens: str) -> np.ndarray:
    """Return the sentences of a shard that are duplicates: sorted int32 indices, from 0."""
    return np.fromfile(duplicates / tokens, np.int32)
