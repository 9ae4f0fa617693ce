"""Stage ``words``: the words of a language in all its training shards, with their counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.token_shards import read_word_counts
from xlmtrain.prepare.word_counts import merge_counts, write_counts

COUNTS = "counts.zst"


def count_words(
    store: ArtifactStore, out: Path, shards: list[tuple[str, list[str]]], languages: list[str]
) -> dict[str, Any]:
    """Write :data:`COUNTS` of the only one of ``languages``; returns the number of running words.

    ``shards``: key and languages of each selected shard. (Executors prefer tasks of equal ``languages``.)
    """
    (language,) = languages
    scratch = out / "scratch"
    scratch.mkdir()
    counts = (read_word_counts(store.path("select", key), language) for key, _ in shards)
    write_counts(out / COUNTS, merge_counts(counts, scratch))
    shutil.rmtree(scratch)
    return {"words": sum(store.result("select", key)["counted"][of.index(language)] for key, of in shards)}
