"""Content-addressed store of intermediate results, in a work directory beside the output.

A :class:`BuildTask` is one piece of work: a stage and its arguments, which name the input (files with size and time of
change, or keys of earlier tasks) and every setting that matters. Its result is an *artifact*, a directory
``{stage}/{key}`` that appears complete, by renaming; the key is a checksum of stage, arguments and code. Therefore:

* a preparation that is started again after an interruption builds only the missing artifacts;
* artifacts of other input, settings or code have other keys: they are not used, and are removed;
* a task can run in any process, on any machine that shares the directory, in any order, even twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from xlmtrain.data.format import PREPARED
from xlmtrain.errors import DataError, UserError
from xlmtrain.runtime.atomic_io import sync_file
from xlmtrain.runtime.output_paths import LOCK_FILE, check_replaceable

RESULT = "result.json"
FINISHED = "finished"
# Libraries that the tokens depend on.
# Of a store: one for each stage, the data set that is put together, the logs of Slurm's jobs.
_DIRECTORIES = (
    *("shard", "held_out", "duplicates", "tokenize", "codes", "subwords", "encode", "vocab", "assemble"),
    *("output", "logs"),
)
_LIBRARIES = ("sacremoses", "regex", "fastBPE", "numpy")


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
    """Return the SHA-256 of the code that tokens and ids depend on, and of its libraries' and Python's versions."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for library in _LIBRARIES:
        digest.update(f"{library} {_version(library)}\n".encode())
    package = Path(__file__).parents[1]
    sources = [*package.joinpath("text").rglob("*.py"), *package.joinpath("prepare").rglob("*.py")]
    for path in sorted([*sources, package / "data" / "format.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


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


def _work_directory(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def _is_store(directory: Path) -> bool:
    """Return whether all that is in ``directory`` was put there by a preparation, or it is empty."""
    if directory.is_symlink() or not directory.is_dir():
        return False
    return all(
        entry.name in (LOCK_FILE, FINISHED, *_DIRECTORIES) or entry.name.endswith(".tasks.json")
        for entry in directory.iterdir()
    )


@contextmanager
def open_store(output: Path) -> Iterator[ArtifactStore]:
    """Open and lock the store of ``output``, in ``.{name}.partial`` beside it.

    An interruption (a signal, a full disk) leaves the store, so that the same command goes on. A UserError removes it
    unless it existed before; so does :func:`publish`. Raises DataError if another process holds it, or for any OSError.
    """
    directory = _work_directory(output)
    is_new = not directory.exists()
    if not is_new and not _is_store(directory):
        raise DataError(f"{directory}: is in the way of preparing {output} and was not left by a preparation; move it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / LOCK_FILE).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(f"{output}: another process is preparing it (it works in {directory})") from None
            try:
                yield ArtifactStore(directory)
            except UserError as error:
                if is_new and not isinstance(error, InterruptedWork):
                    shutil.rmtree(directory, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(
            f"{error.filename or output}: {error.strerror or error}; finished work is kept in {directory}, the same "
            "command goes on"
        ) from error


def publish(store: ArtifactStore, prepared: Path, output: Path, overwrite: bool) -> None:
    """Rename ``prepared``, a directory in the store, to ``output``, and remove the store.

    Raises UserError, and leaves the store, if something that must not be replaced has appeared there meanwhile.
    """
    replaced = output.with_name(f".{output.name}.replaced")
    check_replaceable("output", replaced, PREPARED)
    if os.path.lexists(output):
        if not overwrite:
            raise InterruptedWork(f"{output}: has appeared meanwhile; move it away, and the same command goes on")
        check_replaceable("output", output, PREPARED)
    (store.directory / FINISHED).touch()
    shutil.rmtree(replaced, ignore_errors=True)
    if output.exists():
        output.rename(replaced)
    prepared.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)
    shutil.rmtree(store.directory, ignore_errors=True)


def remove_finished(output: Path) -> None:
    """Remove the store of a complete output, left by a process that was killed while removing it."""
    if (_work_directory(output) / FINISHED).exists() and _is_store(_work_directory(output)):
        shutil.rmtree(_work_directory(output), ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Hard-link ``source`` to ``target``; copy it where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
