"""The directory in which a preparation works: finished pieces, kept under a name made from all that determines them.

A :class:`Task` is one piece of work: a stage and its arguments, which name the input (files with their size and time
of change, or the keys of earlier tasks) and every setting that matters. What it makes is a *part*, a directory
``{stage}/{key}`` that appears whole, by renaming; its key is the checksum of stage, arguments and code. So:

* started again after any kind of end, a preparation finds the parts that are done, and does the others;
* parts made from other input, other settings or by other code have other keys: they are not found, and are removed;
* a task can be done by any process, on any machine that sees the directory, in any order, even twice.
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

from xlmtrain.errors import DataError, UserError
from xlmtrain.runtime.atomic_io import sync_file
from xlmtrain.runtime.output_paths import LOCK_FILE

RESULT = "result.json"
FINISHED = "finished"
# The libraries that the tokens depend on.
_LIBRARIES = ("sacremoses", "regex", "fastBPE", "numpy")


@dataclass(frozen=True)
class BuildTask:
    """``arguments``: plain JSON values. ``size``: bytes of text, for progress only."""

    stage: str
    arguments: dict[str, Any]
    size: int = field(default=0, compare=False)

    @cached_property
    def key(self) -> str:
        """Changes with the stage, any argument, and the code."""
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
    """The parts under a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def part(self, stage: str, key: str) -> Path:
        """Where the part is, or will be."""
        return self.directory / stage / key

    def done(self, task: BuildTask) -> bool:
        """Whether the part is there."""
        return self.part(task.stage, task.key).is_dir()

    def load(self, stage: str, key: str) -> dict[str, Any]:
        """What the task that made the part returned."""
        return json.loads((self.part(stage, key) / RESULT).read_bytes())

    def do(self, task: BuildTask, function: Callable[[Path], dict[str, Any]]) -> None:
        """Make the part unless it is there: ``function`` fills a directory, and returns the result."""
        if self.done(task):
            return
        part = self.part(task.stage, task.key)
        part.parent.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".", dir=part.parent))
        try:
            result = function(partial)
            (partial / RESULT).write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
            for path in partial.iterdir():
                sync_file(path)  # what has its name has its content, also after a power cut
            try:
                partial.rename(part)
            except OSError:  # another process was faster
                if not part.is_dir():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def keep_only(self, stage: str, tasks: Sequence[BuildTask]) -> int:
        """Remove the stage's parts that none of ``tasks`` makes, and what a killed process left; the parts' number."""
        wanted = {task.key for task in tasks}
        stale = 0
        for path in list((self.directory / stage).glob("*")):
            if path.name not in wanted:
                stale += not path.name.startswith(".")
                shutil.rmtree(path, ignore_errors=True)
        return stale


@contextmanager
def open_store(output: Path) -> Iterator[ArtifactStore]:
    """The work directory of ``output``, ``.{name}.partial`` beside it, held by this process.

    It stays when the block is interrupted, by a signal or a full disk, so that the same command goes on. A mistake in
    text or settings (UserError) removes it, unless it was there before, and so does :func:`finish`. Raises DataError
    if another process holds it, or for any OSError.
    """
    directory = output.with_name(f".{output.name}.partial")
    fresh = not directory.exists()
    if not fresh and any(directory.iterdir()) and not (directory / LOCK_FILE).exists():
        raise DataError(f"{directory}: is in the way of preparing {output} and is not what a preparation left; move it")
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
                if fresh and not isinstance(error, InterruptedWork):
                    shutil.rmtree(directory, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(
            f"{error.filename or output}: {error.strerror or error}; finished parts are kept in {directory}, "
            "the same command goes on"
        ) from error


class InterruptedWork(UserError):
    """The work could not be finished, though nothing is wrong with text or settings; the same command goes on."""


def publish(work: ArtifactStore, prepared: Path, output: Path) -> None:
    """Give ``prepared``, a directory within the work directory, the name ``output``; remove the work directory."""
    (work.directory / FINISHED).touch()
    replaced = output.with_name(f".{output.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if output.exists():
        output.rename(replaced)
    prepared.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)
    shutil.rmtree(work.directory, ignore_errors=True)


def remove_finished(output: Path) -> None:
    """Remove the work directory of an output that is complete: its process was killed while removing it."""
    directory = output.with_name(f".{output.name}.partial")
    if (directory / FINISHED).exists():
        shutil.rmtree(directory, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """``source`` under another name, without a copy where the file system can do that."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
