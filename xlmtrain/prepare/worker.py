"""Run one task of a sharded stage, in whatever process or machine an executor chooses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.encode_stage import assemble, encode
from xlmtrain.prepare.shard_raw import shard_raw
from xlmtrain.prepare.tokenize_stage import tokenize

_STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "shard": shard_raw,
    "tokenize": tokenize,
    "encode": encode,
    "assemble": assemble,
}


def run_task(directory: Path, task: BuildTask) -> str:
    """Build the artifact of ``task`` in the work directory unless it exists; returns its key."""
    store = ArtifactStore(directory)
    store.build(task, partial(_STAGES[task.stage], store, **task.arguments))
    return task.key
