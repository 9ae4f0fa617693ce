"""What every reader must do with every input: return something, or raise a UserError, and keep within its bounds."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from xlmtrain.errors import UserError

T = TypeVar("T")
CPU_SECONDS = 20.0
"""Longest CPU time for one input; they have less than 1 MB."""
FIXED_BYTES, BYTES_PER_BYTE = 32 << 20, 64
"""Most memory for one input: this, and so many times its size."""
ADDRESS_BYTES = 8 << 30
"""Address space beyond that of the process: what a header claims is not even reserved."""
_TEMPORARY = Path(tempfile.gettempdir()).resolve()
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink")


@dataclass
class Record:
    """Inputs of one reader so far, and how many of them it accepted."""

    inputs: int = 0
    accepted: int = 0


RECORDS: dict[str, Record] = {}
_written: list[str] | None = None  # paths, while a reader works


class _TooLong(BaseException):
    """The CPU time is over; no ``except Exception`` of the reader catches it."""


def attempt(
    reader: str, read: Callable[[], T], size: int, output: Path | None = None, fixed: int = FIXED_BYTES
) -> T | None:
    """Return what ``read`` returns, None if it raised a UserError with a message.

    ``size``: bytes of the input. ``output``: the only directory in which the reader may write. ``fixed``: bytes of
    memory that it may take for any input. Any other exception passes; AssertionError if the reader used too much time
    or memory, or wrote elsewhere.
    """
    record = RECORDS.setdefault(reader, Record())
    record.inputs += 1
    with _bounded(size, output, fixed):
        try:
            result = read()
        except UserError as error:
            message = str(error)
        else:
            record.accepted += 1
            return result
    assert message.strip(), "an error without a message"
    return None


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Put ``content`` into the file ``path`` for a while."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


@contextmanager
def limited_address_space() -> Iterator[None]:
    """Let an allocation of more than ``ADDRESS_BYTES`` fail, as it would not on a machine that overcommits."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_kilobytes("VmSize") * 1024 + ADDRESS_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _bounded(size: int, output: Path | None, fixed: int) -> Iterator[None]:
    global _written
    before, pages_before = _reset_peak(), _kilobytes("RssFile")
    handler = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    written = _written = []
    try:
        yield
    except _TooLong:
        raise AssertionError(f"more than {CPU_SECONDS:.0f} s of CPU time for {size:,} bytes") from None
    finally:
        _written = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    elsewhere = [path for path in written if not _may_write(Path(path).resolve(), output)]
    assert not elsewhere, f"written outside of the output: {elsewhere}"
    # Pages of libraries that the system dropped, and reads again, are no memory of the reader.
    pages = max(0, _kilobytes("RssFile") - pages_before)
    grown = (_kilobytes("VmHWM") - before - pages) * 1024
    assert grown <= fixed + BYTES_PER_BYTE * size, f"{grown:,} bytes of memory for {size:,} bytes"


def _may_write(path: Path, output: Path | None) -> bool:
    """Return whether ``path`` is in the output, or a temporary file that is none of the tests'."""
    inside = output is not None and path.is_relative_to(output)
    parts = path.relative_to(_TEMPORARY).parts if path.is_relative_to(_TEMPORARY) else ("pytest-",)
    return inside or not parts[0].startswith("pytest-")


def _too_long(number: int, frame: FrameType | None) -> None:
    raise _TooLong


def _reset_peak() -> int:
    """Let the peak of memory begin at the present size, and return it in kB."""
    if _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")
    return _kilobytes("VmHWM")


def _kilobytes(name: str) -> int:
    """Return a line of the process's status in kB, 0 where the system has none."""
    if not _STATUS.exists():
        return 0
    return int(_STATUS.read_text(encoding="ascii").partition(f"{name}:")[2].split()[0])


def _note_writes(event: str, arguments: tuple[Any, ...]) -> None:
    if _written is None:
        return
    opened = event == "open" and bool(arguments[2] & _WRITES)
    changed = event in _CHANGES and arguments[-1] in (-1, None)  # without a descriptor of its directory
    path = arguments[0] if opened or changed or event in ("os.mkdir", "os.chmod", "os.truncate") else None
    if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path) != os.devnull:
        _written.append(os.fsdecode(path))


sys.addaudithook(_note_writes)
