"""Which files and directories of a user's may be written, replaced or emptied.

Every program asks here before it writes to a path that a user gave. A directory is emptied or replaced only if all that
is in it was written by this package; anything else is refused as a whole, and nothing is touched.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from xlmtrain.errors import CheckpointError, ConfigError, DataError
from xlmtrain.runtime.atomic_io import read_json

LOCK_FILE = ".lock"
_MAX_NAME_BYTES = 220
"""File systems hold names of 255 bytes; temporary files add to the name of the output."""


@dataclass(frozen=True)
class DirectoryKind:
    """A kind of directory that this package writes.

    ``name``: in words, with its article. ``header``: the JSON file that every such directory has, with ``keys`` in it.
    ``files``: patterns of the paths of all files that may be in it, part by part as in :mod:`fnmatch`.
    """

    name: str
    header: str
    keys: frozenset[str]
    files: tuple[str, ...]

    def is_kind_of(self, directory: Path) -> bool:
        """Return whether the directory's header is of this kind. Raises CheckpointError if it cannot be read."""
        header = directory / self.header
        return header.is_file() and self.keys <= read_json(header).keys()

    def foreign_files(self, directory: Path) -> list[str]:
        """Return the relative paths of files, links and empty directories that no pattern of ``files`` matches."""
        return sorted(path for path in _leaves(directory) if not self._matches(path))

    def _matches(self, path: str) -> bool:
        """Compare part by part; a pattern that ends in ``/`` is that of an empty directory."""
        parts = path.split("/")
        patterns = (pattern.split("/") for pattern in (*self.files, LOCK_FILE))
        return any(len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern)) for pattern in patterns)


def _leaves(directory: Path) -> Iterator[str]:
    """Yield relative paths, with ``/`` between the parts and one at the end of an empty directory."""
    for root, directories, files in os.walk(directory):
        place = Path(root).relative_to(directory)
        links = [name for name in directories if Path(root, name).is_symlink()]
        for name in [*files, *links]:
            yield str(PurePosixPath(place / name))
        if not directories and not files and root != str(directory):
            yield f"{PurePosixPath(place)}/"


def holds_only(directory: Path, files: Sequence[str]) -> bool:
    """Return whether every file in ``directory`` matches one of the patterns ``files``; then it may be deleted."""
    return not DirectoryKind("", "", frozenset(), tuple(files)).foreign_files(directory)


def check_output_path(setting: str, value: str | Path, inputs: Iterable[str | Path] = ()) -> Path:
    """Return ``value`` as an absolute path without links.

    Raises ConfigError if it is empty (an unset shell variable), the root, the home or the current directory, or a
    directory above the current one; or if it is one of ``inputs`` or above one.
    """
    problem = _path_problem(str(value), inputs)
    if problem is not None:
        raise ConfigError(f"{setting}={value}: {problem}; give the path of a new file or directory")
    return Path(value).resolve()


def _path_problem(value: str, inputs: Iterable[str | Path]) -> str | None:
    if not value.strip():
        return "empty"
    if not Path(value).name.strip("."):
        return "names no directory of its own"
    if value.startswith("~"):
        return "the shell has not expanded the ~"
    if (size := len(os.fsencode(Path(value).name))) > _MAX_NAME_BYTES:
        return f"its name has {size} bytes, {_MAX_NAME_BYTES} are possible"
    try:
        path = Path(value).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a NUL character
        return f"not a usable path ({error})"
    if path == Path("/").resolve():
        return "this is the root directory"
    above = next(one for one in path.parents if os.path.lexists(one))
    if not above.is_dir():
        return f"{above} is a file, not a directory"
    if Path(os.environ.get("HOME", "/")).resolve().is_relative_to(path):
        return "this is the home directory or above it"
    if Path.cwd().resolve().is_relative_to(path):
        return "this is the current directory or above it"
    for given in inputs:
        if Path(given).resolve().is_relative_to(path):
            return f"{given}, which is read, is this or within it"
    return None


def check_directory(setting: str, path: Path, kind: DirectoryKind) -> None:
    """Raise ConfigError unless ``path`` does not exist yet, is an empty directory, or is a directory of this kind.

    Raises CheckpointError if its header is damaged.
    """
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise ConfigError(f"{setting}={path}: is not a directory; choose another path")
    try:
        if kind.is_kind_of(path):
            return
    except CheckpointError as error:
        raise CheckpointError(
            f"{setting}={path}: this may be {kind.name}, but {error}; nothing in it was touched; restore that file or "
            "choose another path"
        ) from None
    hidden = tuple(pattern for pattern in kind.files if pattern.startswith("."))  # left by a start that was killed
    others = DirectoryKind(kind.name, kind.header, kind.keys, hidden).foreign_files(path)
    if others:
        raise ConfigError(
            f"{setting}={path}: this directory is not {kind.name} and is not empty ({_few(others)}); nothing in it was "
            "touched; choose another path"
        )


def check_replaceable(setting: str, path: Path, kind: DirectoryKind) -> None:
    """Raise ConfigError unless everything in the directory ``path`` was written as one of this kind, or it is empty."""
    check_directory(setting, path, kind)
    others = kind.foreign_files(path) if path.is_dir() else []
    if others:
        raise ConfigError(
            f"{setting}={path}: {kind.name}, but these are not part of it: {_few(others)}; nothing in it was touched; "
            "move them away or choose another path"
        )


def clear_directory(setting: str, path: Path, kind: DirectoryKind) -> None:
    """Delete everything in a directory but its header and its lock. Raises ConfigError as :func:`check_replaceable`.

    The header stays until the caller replaces it, so that a directory that was half cleared is still known.
    """
    check_replaceable(setting, path, kind)
    for entry in path.iterdir():
        if entry.name in (kind.header, LOCK_FILE):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _few(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def check_file(setting: str, path: str | Path, is_ours: Callable[[str], bool]) -> None:
    """Raise ConfigError if ``path`` is a file that ``is_ours`` says this package did not write, or cannot be used."""
    check_output_path(setting, path)
    try:
        if os.path.lexists(path) and not is_ours(Path(path).read_text(encoding="utf-8", errors="replace")):
            raise ConfigError(f"{setting}={path}: exists already and is something else; choose another name")
    except OSError as error:
        raise ConfigError(f"{setting}={path}: cannot be written ({error.strerror})") from None


def replace_file(setting: str, path: str | Path, content: str | bytes, is_ours: Callable[[str], bool]) -> None:
    """Write ``content`` to ``path`` atomically. Raises ConfigError as :func:`check_file` does, or if writing fails."""
    check_file(setting, path, is_ours)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"{setting}={path}: cannot be written ({error.strerror})") from None


@contextmanager
def new_directory(output: str | Path) -> Iterator[Path]:
    """Yield a directory to fill, as :func:`new_file`."""
    with new_file(output) as partial:
        partial.mkdir()
        yield partial


def check_new_file(output: str | Path) -> Path:
    """Return the path that ``output`` names. Raises DataError if there is something of that name already."""
    resolved = check_output_path("output", output)
    if os.path.lexists(output) or resolved.exists():
        raise DataError(f"output={output}: exists already; choose another name, or remove it first")
    return resolved


@contextmanager
def new_file(output: str | Path) -> Iterator[Path]:
    """Yield the path of a file to write; it takes the name ``output`` if the block ends well, and is removed otherwise.

    Raises DataError as :func:`check_new_file`, or if the file cannot be written. If something of that name was made
    meanwhile, it stays, and so does what was written, under a name that the error gives.
    """
    output = check_new_file(output)
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _name_output(partial, output)
    except OSError as error:
        raise DataError(f"output={output}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # a directory, or
        with suppress(OSError):  # a file
            partial.unlink()


def _name_output(partial: Path, output: Path) -> None:
    if not partial.is_dir():
        with suppress(OSError):  # the name is taken, or the file system has no links
            os.link(partial, output)  # a rename could replace a file
            return
    if os.path.lexists(output):
        raise DataError(f"output={output}: was made by another program meanwhile; the result is in {_keep(partial)}")
    partial.rename(output)


def _keep(partial: Path) -> Path:
    """Give what is written a name that is not hidden, and return it."""
    kept = check_new_file(partial.with_name(partial.name.removeprefix(".")))
    partial.rename(kept)
    return kept


@contextmanager
def lines_kept_if_stopped(partial: Path) -> Iterator[BinaryIO]:
    """Open the path that :func:`new_file` yields; if the block fails, keep the lines in it under a name of their own.

    The name is printed. Without a line, or if the name is taken, nothing is kept.
    """
    try:
        with partial.open("wb") as file:
            yield file
    except BaseException:
        with suppress(OSError, DataError):
            with partial.open("rb") as written:
                lines = sum(1 for _ in written)
            if lines:
                print(f"stopped: the first {lines:,} lines are in {_keep(partial)}", file=sys.stderr)
        raise
