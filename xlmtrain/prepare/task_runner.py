"""Run tasks in this process: what each worker of an executor does.

A worker imports this module, and with it neither torch nor Ray, whose import takes longer than a small task.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from xlmtrain.errors import ConfigError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.encode_stage import assemble, encode
from xlmtrain.prepare.select_stage import select
from xlmtrain.prepare.shard_raw import shard_raw
from xlmtrain.prepare.tokenize_stage import tokenize
from xlmtrain.prepare.words_stage import count_words

_STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "shard": shard_raw,
    "tokenize": tokenize,
    "select": select,
    "words": count_words,
    "encode": encode,
    "assemble": assemble,
}


def run_task(directory: Path, task: BuildTask) -> str:
    """Build the artifact of ``task`` in the work directory unless it exists; returns its key."""
    store = ArtifactStore(directory)
    store.build(task, partial(_STAGES[task.stage], store, **task.arguments))
    return task.key


def run_share(tasks: Path, share: int, of: int) -> Iterator[str]:
    """Run every ``of``-th task of the file, from number ``share`` on, as one array task does; yields the keys.

    Raises ConfigError if the file is not a list of tasks.
    """
    try:
        listed = [BuildTask(*item) for item in json.loads(tasks.read_bytes())]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"tasks={tasks}: not a list of tasks ({error}); give the {{stage}}.tasks.json of a running preparation"
        ) from None
    for task in listed[share::of]:
        yield run_task(tasks.parent, task)
