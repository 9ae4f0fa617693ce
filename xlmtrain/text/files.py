"""The raw text files: which they are, whether they can be read at all, and their lines.

Only ``\\n`` ends a line (U+0085 and U+2028 do not), and a ``\\r`` before it is no part of the line.
"""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.errors import DataError

BLOCK_BYTES = 1 << 20
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class RawText:
    """A file of one language, or the two aligned files of a pair, in the order of ``languages``."""

    split: str
    languages: tuple[str, ...]
    paths: tuple[Path, ...]

    @property
    def pair(self) -> str | None:
        """The pair's name, None for a single language."""
        return "-".join(self.languages) if len(self.languages) > 1 else None


@dataclass(frozen=True)
class Extent:
    """What a first look at a file found: lines, and bytes once decompressed."""

    lines: int
    bytes: int


def find_texts(config: PrepareConfig) -> list[RawText]:
    """All files of the settings: sorted within a pattern, patterns in the given order.

    Raises DataError with the key path if a pattern matches nothing, or not the same files for both languages.
    """
    texts: list[RawText] = []
    for split in SPLITS:
        section = getattr(config, split)
        for language, patterns in section.mono.items():
            for pattern in patterns:
                matched = _matches(pattern, language, f"{split}.mono.{language}")
                texts += [RawText(split, (language,), (path,)) for path in matched.values()]
        for pair, patterns in section.pairs.items():
            languages = tuple(pair.split("-"))
            for pattern in patterns:
                key_path = f"{split}.pairs.{pair}"
                if "{lang}" not in pattern:
                    raise DataError(f"{key_path}: {pattern} has no {{lang}} in it to stand for either language")
                left, right = (_matches(pattern, language, key_path) for language in languages)
                for one, other in ((left, right), (right, left)):
                    if alone := [path for key, path in one.items() if key not in other]:
                        raise DataError(f"{key_path}: {alone[0]} has no counterpart in the other language")
                texts += [RawText(split, languages, (path, right[key])) for key, path in left.items()]
    return texts


def _matches(pattern: str, language: str, key_path: str) -> dict[tuple[str, ...], Path]:
    """The files of a pattern, sorted; the key of each is what its wildcards stand for."""
    pattern = os.path.normpath(pattern.replace("{lang}", language))  # as glob gives back what it finds
    wildcards = {"*": "([^/]*)", "?": "([^/])"}
    expression = re.compile("".join(wildcards.get(char, re.escape(char)) for char in pattern))
    found = sorted(path for path in glob.glob(pattern.replace("[", "[[]")) if Path(path).is_file())
    if not found:
        raise DataError(f"{key_path}: no file matches {pattern} (looked in {Path.cwd()})")
    return {match.groups(): Path(match.string) for path in found if (match := expression.fullmatch(path))}


def open_bytes(path: Path) -> io.BufferedIOBase:
    """The decompressed content of a file, as a stream."""
    match path.suffix:
        case ".gz":
            return gzip.GzipFile(path)
        case ".bz2":
            return bz2.BZ2File(path)
        case ".xz":
            return lzma.LZMAFile(path)
        case ".zst":
            return io.BufferedReader(_ZstdReader(path), BLOCK_BYTES)
    return path.open("rb")


class _ZstdReader(io.RawIOBase):
    """zstandard's own reader takes a file that was cut off for a complete one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._input = b""
        self._output = memoryview(b"")
        self._at_boundary = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._output:
            self._input = self._input or self._file.read(BLOCK_BYTES // 8)
            if not self._input:
                if not self._at_boundary:
                    raise EOFError("compressed file ended before the end of a frame")
                return 0
            self._output = memoryview(self._frame.decompress(self._input))
            self._input, self._at_boundary = self._frame.unused_data, self._frame.eof
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def examine(path: Path) -> Extent:
    """Read a file once. Raises DataError if it cannot be read to its end, or, with the line, if it is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = size = 0
    block = last = b""
    try:
        with open_bytes(path) as stream:
            while block := stream.read(BLOCK_BYTES):
                decoder.decode(block)
                lines += block.count(b"\n")
                size += len(block)
                last = block
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # The decoder may have held back the first bytes of a character, which hold no line end.
        number = lines + 1 + error.object.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}:{number}: not UTF-8 ({error.reason}); convert the file, e.g. with iconv, or remove the line"
        ) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"{path}: cannot be read to its end ({error}); is it damaged or cut off?") from error
    return Extent(lines + (1 if last and not last.endswith(b"\n") else 0), size)


def check_aligned(text: RawText, extents: dict[Path, Extent]) -> None:
    """Raises DataError if the two files of a pair have not the same number of lines."""
    if text.pair is None:
        return
    (short, fewer), (long, more) = sorted(((p, extents[p].lines) for p in text.paths), key=lambda item: item[1])
    if fewer != more:
        raise DataError(
            f"{text.split}.pairs.{text.pair}: {short} has {fewer} lines, {long} has {more}; "
            f"{long}:{fewer + 1} is the first line without a partner"
        )


@dataclass(frozen=True)
class Chunk:
    """Some lines of a raw text; ``lines`` holds as many for each of its languages, without line ends; ``size`` counts
    bytes, line ends included."""

    index: int
    languages: tuple[str, ...]
    lines: tuple[list[bytes], ...]
    size: int


def read_chunks(index: int, text: RawText, target_bytes: int) -> Iterator[Chunk]:
    """The lines of ``text`` in order, in chunks of about ``target_bytes``; ``index`` is kept in the chunks."""
    streams = [open_bytes(path) for path in text.paths]
    try:
        lines: tuple[list[bytes], ...] = tuple([] for _ in streams)
        size = 0
        for aligned in zip(*streams, strict=True):
            for side, line in zip(lines, aligned):
                side.append(line.removesuffix(b"\n").removesuffix(b"\r"))
                size += len(line)
            if size >= target_bytes:
                yield Chunk(index, text.languages, lines, size)
                lines, size = tuple([] for _ in streams), 0
        if size:
            yield Chunk(index, text.languages, lines, size)
    finally:
        for stream in streams:
            stream.close()
