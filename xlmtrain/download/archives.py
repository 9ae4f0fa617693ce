"""Reading out of archives and compressed files that may be hostile.

Nothing is ever unpacked to disk: the wanted member is read as a stream. An archive is refused as a whole if any of its
members has a name that leads out of it, is a link or a device, or is there twice; so is what grows out of proportion.
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
from typing import BinaryIO, cast

from xlmtrain.errors import DataError

MEMBERS = 20_000
HEADER_BYTES = 1 << 20
LINE_BYTES = 1 << 20
BLOCK_BYTES = 1 << 18
# Text of these kinds takes a third to a tenth of its size when compressed.
GROWTH, GROWTH_FLOOR = 60, 1 << 28
_DECOMPRESSORS: dict[str, Callable] = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)


def _ignore(_: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def open_compressed(path: Path, advance: Callable[[int], object] = _ignore) -> Iterator[BinaryIO]:
    """The content of a file, decompressed by its name's ending; ``advance`` is told how much of the file was read.

    Raises DataError where it is damaged or too much.
    """
    with ExitStack() as stack:
        with _naming(path):
            stream = _whole(stack, path, advance)
        yield stream


@contextmanager
def open_member(path: Path, name: str) -> Iterator[BinaryIO]:
    """The member ``name`` of a zip or tar archive. Raises DataError if there is none, or the archive is refused."""
    names = []
    with ExitStack() as stack:
        with _naming(path):
            for found, stream in _members(stack, path):  # noqa: B007 (used below)
                names.append(found)
                if found == name:
                    break
            else:
                raise DataError(f"holds no {name}, only {', '.join(sorted(names)[:10])}")
        yield _guarded(stream, path)


def check_archive(path: Path) -> None:
    """Read an archive to its end, so that it is refused before any of it is used."""
    with ExitStack() as stack, _naming(path):
        for _, stream in _members(stack, path):
            while stream.read(BLOCK_BYTES):
                pass


def check_compressed(path: Path) -> int:
    """Read a compressed file to its end, where its own checksum is; returns the lines in it."""
    count = 0
    with open_compressed(path) as stream:
        while block := stream.read(BLOCK_BYTES):
            count += block.count(b"\n")
    return count


def lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    """The lines without their ends; one that is not UTF-8 comes as an empty one. Only a line feed ends a line."""
    while line := stream.readline(LINE_BYTES):
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            raise DataError(f"{path}: a line of more than {LINE_BYTES:,} bytes; is this text?")
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield ""


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in every error, and turn what libraries raise for damaged ones into a DataError."""
    try:
        yield
    except DataError as error:
        raise error if str(error).startswith(f"{path}: ") else DataError(f"{path}: {error}") from error
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read ({error or type(error).__name__}); is it damaged?") from error


class _StrictInfo(tarfile.TarInfo):
    """Refuses a header before anything is done about it: Python would read extended headers of any length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.size > HEADER_BYTES and member.type not in tarfile.REGULAR_TYPES):
            raise DataError(f"holds a header of {member.size:,} bytes; refused")
        return member


class _Counted(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, path: Path, advance: Callable[[int], object]) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        count = super().readinto(buffer)
        self._advance(count or 0)
        return count


class _Guarded(io.RawIOBase):
    """A stream that is not longer than ``most`` bytes, and whose errors name the file."""

    def __init__(self, stream: BinaryIO, path: Path, most: int) -> None:
        self._stream, self._path, self._left = stream, path, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _naming(self._path):
            block = self._stream.read(len(buffer))
            self._left -= len(block)
            if self._left < 0:
                raise DataError("grows out of proportion when decompressed; refused")
        buffer[: len(block)] = block
        return len(block)


def _guarded(stream: BinaryIO, path: Path) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Guarded(stream, path, _most_bytes(path)), BLOCK_BYTES))


def _most_bytes(path: Path) -> int:
    return max(GROWTH * path.stat().st_size, GROWTH_FLOOR)


def _whole(stack: ExitStack, path: Path, advance: Callable[[int], object] = _ignore) -> BinaryIO:
    file = stack.enter_context(io.BufferedReader(_Counted(path, advance), BLOCK_BYTES))
    decompress = _DECOMPRESSORS.get(path.suffix)
    return _guarded(stack.enter_context(decompress(file)) if decompress else cast(BinaryIO, file), path)


def _members(stack: ExitStack, path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Name and content of the files in an archive, each to be read before the next; names are checked on the way."""
    seen: set[str] = set()
    if path.suffix == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(path))
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            _check_kind(entry.orig_filename, kind in (0, stat.S_IFREG, stat.S_IFDIR) and not entry.flag_bits & 1)
            _check_name(entry.orig_filename, seen, entry.filename.endswith("/"))
        if sum(entry.file_size for entry in archive.infolist()) > _most_bytes(path):
            raise DataError("grows out of proportion when decompressed; refused")
        for entry in archive.infolist():
            if not entry.filename.endswith("/"):
                yield _plain(entry.filename), cast(BinaryIO, stack.enter_context(archive.open(entry)))
        return
    whole = _whole(stack, path)
    tar = stack.enter_context(tarfile.open(fileobj=whole, mode="r|", tarinfo=_StrictInfo))  # noqa: SIM115
    for member in tar:
        _check_kind(member.name, (member.isreg() or member.isdir()) and not member.issparse() and member.size >= 0)
        _check_name(member.name, seen, member.isdir())
        if member.isreg() and (stream := tar.extractfile(member)) is not None:
            yield _plain(member.name), cast(BinaryIO, stream)
    while whole.read(BLOCK_BYTES):  # what follows the end mark, with the compressor's checksum behind it
        pass


def _check_kind(name: str, good: bool) -> None:
    if not good:
        raise DataError(f"holds {name[:100]!r}, which is not a plain file or directory; refused")


def _check_name(name: str, seen: set[str], directory: bool) -> None:
    odd = name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name or len(name) > 1024
    if odd or not name or not name.isprintable():
        raise DataError(f"holds a member called {name[:100]!r}; refused")
    if _plain(name) in seen and not directory:
        raise DataError(f"holds {name[:100]!r} twice; refused")
    seen.add(_plain(name))
    if len(seen) > MEMBERS:
        raise DataError(f"holds more than {MEMBERS:,} members; refused")


def _plain(name: str) -> str:
    """The name without ``./`` and the like."""
    return str(PurePosixPath(name))
