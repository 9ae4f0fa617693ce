"""Open text files of every kind: raw text, tables of labels, lexicons, BPE codes, vocabularies.

Compression is recognised by the first bytes of a file, not by its name: gzip, bzip2, xz, lzma and Zstandard are read in
place. A line ends with ``\\n`` or ``\\r\\n`` and nothing else: NEL, U+2028 and form feeds stay in the line. UTF-8
byte-order marks at the beginning are removed. Archives, binary files, UTF-16 and lines ending with ``\\r`` are refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import zstandard

from xlmtrain.errors import DataError

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 24
"""Longest line of a table, a lexicon, codes or a vocabulary."""

BOM = "\ufeff"
"""Byte-order mark."""
_HEAD_BYTES = 1 << 16
_MAX_WINDOW_BYTES = 1 << 31  # zstd --long=31; memory is taken as it is filled
COMPRESSED_NAMES = frozenset({".gz", ".bz2", ".xz", ".lzma", ".zst"})
# First bytes of files that are not text -> their name and what to do.
_REFUSED = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PK\x05\x06": "a zip archive; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!\x1a\x07": "a rar archive; unpack it",
    b"\x1f\x9d": "compressed with compress; decompress it",
    b"\x04\x22\x4d\x18": "compressed with lz4; decompress it",
    b"LZIP\x01": "compressed with lzip; decompress it",
    b"\xff\xfe\x00\x00": "UTF-32, not UTF-8; convert it, e.g. with iconv -f UTF-32 -t UTF-8",
    b"\xff\xfe": "UTF-16, not UTF-8; convert it, e.g. with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16, not UTF-8; convert it, e.g. with iconv -f UTF-16 -t UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32, not UTF-8; convert it, e.g. with iconv -f UTF-32 -t UTF-8",
    b"%PDF-": "a PDF; give plain text",
    b"{\\rtf": "RTF of a word processor; save it as plain text",
    b"PAR1": "a Parquet table; give plain text",
    b"ARROW1": "an Arrow table; give plain text",
    b"\xff\xff\xff\xff": "an Arrow table; give plain text",
    b"SQLite format 3": "an SQLite database; give plain text",
    b"\x89PNG": "a picture; give plain text",
    b"\xff\xd8\xff": "a picture; give plain text",
}
_LEADING_BOMS = re.compile(rb"\A(?:\xef\xbb\xbf)+")  # a second program may add a second one
_LONE_CR = re.compile(rb"\r(?!\n)")


def file_problem(path: Path) -> str | None:
    """Return why ``path`` is not a file that can be opened more than once; None if it is one."""
    if path.is_file():
        return None
    if path.is_dir():
        return f"{path} is a directory; give its files, like {path}/*"
    if path.exists():
        return f"{path} is a pipe or a device, and must be read twice; write its content to a file first"
    return f"{path} is not there (looked in {Path.cwd()})"


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file for reading its decompressed content."""
    if path.is_fifo():  # opened again below, it would block
        raise DataError(str(file_problem(path)))
    with path.open("rb") as file:
        head = file.read(14)
    if open_file := _decompressor(head):
        return open_file(path)
    if not head and path.suffix.lower() in COMPRESSED_NAMES:
        raise EOFError("the file is empty")
    return path.open("rb")


def open_zstd_writer(path: Path) -> zstandard.ZstdCompressionWriter:
    """Open a file for writing content that is compressed with Zstandard."""
    return zstandard.ZstdCompressor(level=1).stream_writer(path.open("wb"), write_size=BLOCK_BYTES)


def read_byte_lines(path: Path, max_bytes: int = 0, what: str = "text", is_own: bool = False) -> Iterator[bytes]:
    """Yield the lines of a text file without their ends, not decoded.

    ``max_bytes`` bounds memory even for a line that never ends: longer lines are truncated to one byte more than this;
    0 keeps all. ``is_own``: written by this program, so the content is taken as it is. Raises DataError if the file
    cannot be read to its end or is not text.
    """
    rest, limit = b"", max_bytes + 1 if max_bytes else None
    with file_errors(path, what), open_bytes(path) as stream:
        head = stream.read(_HEAD_BYTES)
        if not is_own:
            _check_text(path, head)
        block = head if is_own else _LEADING_BOMS.sub(b"", head)
        while block:
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield line[:limit].removesuffix(b"\r")
            rest = rest[:limit]
            block = stream.read(BLOCK_BYTES)
    if rest:
        yield rest.removesuffix(b"\r")


def read_bounded_lines(path: Path, what: str) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line without its end); ``what`` the file holds, for messages.

    Raises DataError as :func:`read_byte_lines`, and for a line of more than ``MAX_LINE_BYTES``.
    """
    for number, line in enumerate(read_byte_lines(path, MAX_LINE_BYTES, what), start=1):
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{path}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes; is this a file of {what}?")
        yield number, line


def read_lines(path: str | Path, what: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a UTF-8 text file; ``what`` it holds, for messages.

    Raises DataError with file and line if it is missing, damaged, not text, or not UTF-8.
    """
    for number, line in read_bounded_lines(Path(path), what):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            message = f"{path}:{number}: not UTF-8 ({error.reason}); is this a file of {what}?"
            raise DataError(f"{message} Convert it, e.g. with iconv") from None
        yield number, text


def _decompressor(head: bytes) -> Callable[[Path], io.BufferedIOBase] | None:
    """Return the opener for a file that begins with ``head``, None if it is not compressed."""
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile
    if re.match(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", head):
        return bz2.BZ2File
    if head.startswith(b"\xfd7zXZ\x00") or re.match(rb"\x5d\x00\x00..(?:\xff{8}|.{5}\x00{3})", head, re.DOTALL):
        return lzma.LZMAFile
    if re.match(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", head):
        return lambda path: io.BufferedReader(_ZstdReader(path), BLOCK_BYTES)
    return None


def _check_text(path: Path, head: bytes) -> None:
    """Raise DataError if the decompressed content, which begins with ``head``, is not lines of text."""
    is_misnamed = path.suffix.lower() in COMPRESSED_NAMES and not _is_compressed(path)
    if is_misnamed and _is_binary(head) and not head.startswith(tuple(_REFUSED)):
        raise OSError(f"its content is neither text nor compressed as {path.suffix} says")
    if problem := _problem(head):
        raise DataError(f"{path}: is {problem}")


def _problem(head: bytes) -> str | None:
    """Describe a file whose content begins with ``head`` and is not lines of text; None for text."""
    for magic, problem in _REFUSED.items():
        if head.startswith(magic):
            return problem
    if _is_tar(head):
        return "a tar archive; unpack it"
    if _decompressor(head):
        return "compressed twice; decompress it once"
    if head.count(b"\x00") > len(head) // 50:
        return "full of NUL bytes: UTF-16, which iconv converts, or not text"
    if len(_LONE_CR.findall(head, 0, len(head) - 1)) > head.count(b"\n"):
        if b"\r\r\n" in head:
            return "made of lines that end with several carriage returns; remove them, e.g. with: tr -d '\\r'"
        return "made of lines that end with a carriage return alone; convert it, e.g. with: tr '\\r' '\\n'"
    return None


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_binary(head: bytes) -> bool:
    return b"\x00" in head or len(head.decode(errors="ignore").encode()) < len(head) - 3


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return _decompressor(file.read(14)) is not None


@contextmanager
def file_errors(path: Path, what: str) -> Iterator[None]:
    """Turn what the system and the libraries raise for missing and damaged files into a DataError with the path."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: cannot read the {what}: {error.strerror}") from None
        raise DataError(
            f"{path}: cannot be read to its end ({error}); is it damaged, truncated, or misnamed?"
        ) from error


class _ZstdReader(io.RawIOBase):
    """Zstandard reader that raises EOFError for a truncated file, unlike the library's own."""

    def __init__(self, path: Path) -> None:
        self._blocks = _zstd_blocks(path.open("rb"))
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            if (block := next(self._blocks, None)) is None:
                return 0
            self._rest = memoryview(block)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _zstd_blocks(file: BinaryIO) -> Iterator[bytes]:
    frame = None
    with file:
        while content := file.read(BLOCK_BYTES // 8):
            while content:
                frame = frame or zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
                yield frame.decompress(content)
                content = frame.unused_data
                if frame.eof:
                    frame = None
    if frame is not None:
        raise EOFError("compressed file ended before the end of a frame")
