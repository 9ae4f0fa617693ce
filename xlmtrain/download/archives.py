"""Read archives and compressed files that may be hostile.

Nothing is ever unpacked to disk: the wanted member is read as a stream. An archive is refused as a whole if any of its
members has a name that leads out of it, is a link or a device, or occurs twice; so is a file that decompresses to far
more than text would.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from xlmtrain.errors import DataError

MAX_MEMBERS = 20_000
MAX_HEADER_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20
BLOCK_BYTES = 1 << 18
# Compressed text of these kinds has a third to a tenth of its size.
MAX_RATIO, MAX_RATIO_FLOOR = 60, 1 << 28
_DECOMPRESSORS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)
_BOMB = "decompresses to far more than text would; refused"


@contextmanager
def open_compressed(path: Path) -> Iterator[BinaryIO]:
    """Yield the content of a file, decompressed as its suffix says. Raises DataError where it is damaged or a bomb."""
    with ExitStack() as stack:
        with _errors_of(path):
            stream = _decompressed(stack, path)
        yield stream


@contextmanager
def open_member(path: Path, name: str) -> Iterator[BinaryIO]:
    """Yield the member ``name`` of a zip or tar archive. Raises DataError without it, or if the archive is refused."""
    names = []
    with ExitStack() as stack:
        with _errors_of(path):
            for found, stream in _members(stack, path):  # noqa: B007 (used below)
                names.append(found)
                if found == name:
                    break
            else:
                raise DataError(f"holds no {name}, only {', '.join(sorted(names)[:10])}")
        yield _limited(stream, path)


def check_archive(path: Path) -> None:
    """Read an archive to its end, so that it is refused before any of it is used."""
    with ExitStack() as stack, _errors_of(path):
        for _, stream in _members(stack, path):
            while stream.read(BLOCK_BYTES):
                pass


def check_compressed(path: Path) -> int:
    """Read a compressed file to its end, where its own checksum is; return the number of lines in it."""
    with open_compressed(path) as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(BLOCK_BYTES), b""))


def lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    """Yield the lines without their ends, an empty one for a line that is not UTF-8. Only a line feed ends a line."""
    while line := stream.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise DataError(f"{path}: a line of more than {MAX_LINE_BYTES:,} bytes; is this text?")
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield ""


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Name the file in every error, and turn what libraries raise for damaged files into a DataError."""
    try:
        yield
    except DataError as error:
        raise error if str(error).startswith(f"{path}: ") else DataError(f"{path}: {error}") from error
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read ({error or type(error).__name__}); is it damaged?") from error


class _StrictInfo(tarfile.TarInfo):
    """Refuses long headers before they are read: Python reads extended headers of any length into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.size > MAX_HEADER_BYTES and member.type not in tarfile.REGULAR_TYPES):
            raise DataError(f"holds a header of {member.size:,} bytes; refused")
        return member


class _Limited(io.RawIOBase):
    """A stream of at most ``limit`` bytes, whose errors name the file."""

    def __init__(self, stream: BinaryIO, path: Path, limit: int) -> None:
        self._stream, self._path, self._left = stream, path, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _errors_of(self._path):
            block = self._stream.read(len(buffer))
            self._left -= len(block)
            if self._left < 0:
                raise DataError(_BOMB)
        buffer[: len(block)] = block
        return len(block)


def _limited(stream: BinaryIO, path: Path) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Limited(stream, path, _size_limit(path)), BLOCK_BYTES))


def _size_limit(path: Path) -> int:
    return max(MAX_RATIO * path.stat().st_size, MAX_RATIO_FLOOR)


def _decompressed(stack: ExitStack, path: Path) -> BinaryIO:
    open_file = _DECOMPRESSORS.get(path.suffix, open)
    return _limited(stack.enter_context(open_file(path, "rb")), path)


def _members(stack: ExitStack, path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Yield name and content of each file in an archive, to be read before the next; check names and kinds."""
    seen: set[str] = set()
    if path.suffix == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(path))
        for entry in archive.infolist():
            plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            _check_member(entry.orig_filename, entry.filename.endswith("/"), plain and not entry.flag_bits & 1, seen)
        if sum(entry.file_size for entry in archive.infolist()) > _size_limit(path):
            raise DataError(_BOMB)
        for entry in archive.infolist():
            if not entry.filename.endswith("/"):
                yield _plain(entry.filename), cast(BinaryIO, stack.enter_context(archive.open(entry)))
        return
    whole = _decompressed(stack, path)
    tar = stack.enter_context(tarfile.open(fileobj=whole, mode="r|", tarinfo=_StrictInfo))  # noqa: SIM115
    for member in tar:
        plain = (member.isreg() or member.isdir()) and not member.issparse() and member.size >= 0
        _check_member(member.name, member.isdir(), plain, seen)
        if member.isreg() and (stream := tar.extractfile(member)) is not None:
            yield _plain(member.name), cast(BinaryIO, stream)
    while whole.read(BLOCK_BYTES):  # what follows the end mark, with the compressor's checksum behind it
        pass


def _check_member(name: str, is_directory: bool, is_plain: bool, seen: set[str]) -> None:
    """Raise DataError for a member that no archive of text has; ``seen`` collects the names."""
    odd = name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name or len(name) > 1024
    if not is_plain:
        raise DataError(f"holds {name[:100]!r}, which is not a plain file or directory; refused")
    if odd or not name or not name.isprintable():
        raise DataError(f"holds a member called {name[:100]!r}; refused")
    if _plain(name) in seen and not is_directory:
        raise DataError(f"holds {name[:100]!r} twice; refused")
    seen.add(_plain(name))
    if len(seen) > MAX_MEMBERS:
        raise DataError(f"holds more than {MAX_MEMBERS:,} members; refused")


def _plain(name: str) -> str:
    """Return the name without ``./`` and the like."""
    return str(PurePosixPath(name))
