"""Content-addressed store of intermediate results, in a work directory beside the output.

A :class:`BuildTask` is one piece of work: a stage and its arguments, which name the input (files with size and time of
change, or keys of earlier tasks) and every setting that matters. Its result is an *artifact*, a directory
``{stage}/{key}`` that appears complete, by renaming; the key is a checksum of stage, arguments and code. So a
preparation that is started again builds only what is missing, and a task can run on any machine that shares the
directory, even twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from xlmtrain.errors import UserError
from xlmtrain.runtime.atomic_io import sync_file

RESULT = "result.json"
_LIBRARIES = ("sacremoses", "regex", "numpy", "tokenizers", "sentencepiece")  # those that the tokens depend on


class InterruptedWork(UserError):
    """The work could not be finished though text and settings are correct; the same command goes on."""


@dataclass(frozen=True)
class BuildTask:
    """One piece of work. ``arguments``: JSON values. ``size``: bytes of text, for progress only."""

    stage: str
    arguments: dict[str, Any]
    size: int = field(default=0, compare=False)

    @cached_property
    def key(self) -> str:
        """Checksum over the stage, the arguments, and the code."""
        parts = [self.stage, self.arguments, code_version()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the SHA-256 of the code that ids depend on, and of the versions of its libraries and of Python."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for library in _LIBRARIES:
        try:
            digest.update(f"{library} {version(library)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{library} none\n".encode())
    package = Path(__file__).parents[1]
    sources = [*package.joinpath("text").rglob("*.py"), *package.joinpath("prepare").rglob("*.py")]
    for path in sorted([*sources, package / "data" / "format.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class ArtifactStore:
    """The artifacts in a work directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, stage: str, key: str) -> Path:
        """Return the directory of an artifact, which may not exist yet."""
        return self.directory / stage / key

    def exists(self, task: BuildTask) -> bool:
        """Return whether the task's artifact exists."""
        return self.path(task.stage, task.key).is_dir()

    def result(self, stage: str, key: str) -> dict[str, Any]:
        """Return the JSON result of the task that built the artifact."""
        result: dict[str, Any] = json.loads((self.path(stage, key) / RESULT).read_bytes())
        return result

    def build(self, task: BuildTask, function: Callable[[Path], dict[str, Any]]) -> None:
        """Build the task's artifact unless it exists: ``function`` fills a directory and returns the JSON result."""
        if self.exists(task):
            return
        final = self.path(task.stage, task.key)
        final.parent.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".", dir=final.parent))
        try:
            result = function(partial)
            (partial / RESULT).write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
            for path in partial.iterdir():
                sync_file(path)  # so that a power cut cannot leave a renamed directory with empty files
            try:
                partial.rename(final)
            except OSError:  # another process was faster
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def gc(self, stage: str, tasks: Sequence[BuildTask]) -> int:
        """Remove the stage's artifacts that belong to none of ``tasks``, and leftovers of killed processes.

        Returns the number of artifacts removed.
        """
        wanted = {task.key for task in tasks}
        stale = 0
        for path in list((self.directory / stage).glob("*")):
            if path.name not in wanted:
                stale += not path.name.startswith(".")
                shutil.rmtree(path, ignore_errors=True)
        return stale
