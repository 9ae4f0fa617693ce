"""Find the raw text files and read their lines, plain or compressed.

Only ``\\n`` ends a line (U+0085 and U+2028 do not); a ``\\r`` before it is removed.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import zstandard

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.errors import DataError

BLOCK_BYTES = 1 << 20
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class RawText:
    """One file of a language, or the two aligned files of a pair, in the order of ``languages``."""

    split: str
    languages: tuple[str, ...]
    paths: tuple[Path, ...]

    @property
    def pair(self) -> str | None:
        """Name of the pair, None for a single language."""
        return "-".join(self.languages) if len(self.languages) > 1 else None

    def sides(self) -> Iterator[tuple[str, Path]]:
        """Yield (language, file)."""
        return zip(self.languages, self.paths)


def find_texts(config: PrepareConfig) -> list[RawText]:
    """Return the files of the settings: sorted within a pattern, patterns in the given order.

    Raises DataError with the key path if a pattern matches no file, or different files for the two languages.
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
                    raise DataError(f"{key_path}: {pattern} must contain {{lang}}, which stands for either language")
                left, right = (_matches(pattern, language, key_path) for language in languages)
                for one, other in ((left, right), (right, left)):
                    if unpaired := [path for key, path in one.items() if key not in other]:
                        raise DataError(f"{key_path}: {unpaired[0]} has no counterpart in the other language")
                texts += [RawText(split, languages, (path, right[key])) for key, path in left.items()]
    return texts


def _matches(pattern: str, language: str, key_path: str) -> dict[tuple[str, ...], Path]:
    """Return the files of a pattern, sorted, keyed by the text that the wildcards match."""
    pattern = os.path.normpath(pattern.replace("{lang}", language))  # as glob returns paths
    wildcards = {"*": "([^/]*)", "?": "([^/])"}
    expression = re.compile("".join(wildcards.get(char, re.escape(char)) for char in pattern))
    found = sorted(path for path in glob.glob(pattern.replace("[", "[[]")) if Path(path).is_file())
    if not found:
        if Path(pattern).is_dir():
            raise DataError(f"{key_path}: {pattern} is a directory; give its files, like {pattern}/*")
        raise DataError(f"{key_path}: no file matches {pattern} (looked in {Path.cwd()})")
    return {match.groups(): Path(match.string) for path in found if (match := expression.fullmatch(path))}


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file for reading its decompressed content."""
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
    """Zstandard reader that raises EOFError for a truncated file, unlike the library's own."""

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


@dataclass(frozen=True)
class Chunk:
    """Consecutive lines of a raw text. ``lines``: for each language the same number of lines, without line ends.
    ``size``: bytes, line ends included; ``index`` of the chunk, from 0; ``first``: number of the first line, from 1."""

    index: int
    languages: tuple[str, ...]
    lines: tuple[list[bytes], ...]
    size: int
    first: int = 1


class UnequalLengths(DataError):
    """The two files of a pair have different numbers of lines; ``surplus``: the difference."""

    def __init__(self, message: str, surplus: int) -> None:
        super().__init__(message)
        self.surplus = surplus


def read_chunks(text: RawText, target_bytes: int, max_line_bytes: int = 0) -> Iterator[Chunk]:
    """Yield the lines of ``text`` in order, in chunks of about ``target_bytes``.

    ``max_line_bytes``: longer lines are truncated to one byte more than this; 0 keeps all. Raises UnequalLengths after
    the last chunk if one file of a pair has more lines, DataError if a file cannot be read to its end.
    """
    with ExitStack() as stack:
        sides = [_lines(path, stack.enter_context(_open(path)), max_line_bytes) for path in text.paths]
        lines: tuple[list[bytes], ...] = tuple([] for _ in sides)
        size, index, first = 0, 0, 1
        for aligned in zip_longest(*sides):
            if None in aligned:
                break
            for side, line in zip(lines, aligned):
                side.append(line)
                size += len(line) + 1
            if size >= target_bytes:
                yield Chunk(index, text.languages, lines, size, first)
                index, first = index + 1, first + len(lines[0])
                lines, size = tuple([] for _ in sides), 0
        else:
            aligned = ()
        if size:
            yield Chunk(index, text.languages, lines, size, first)
        if aligned:
            raise _unequal(text, aligned, sides, first + len(lines[0]))


def _unequal(text: RawText, aligned: tuple[bytes | None, ...], sides: list[Iterator[bytes]], first: int) -> DataError:
    more = next(side for side, line in enumerate(aligned) if line is not None)
    surplus = 1 + sum(1 for _ in sides[more])
    short, long = text.paths[1 - more], text.paths[more]
    return UnequalLengths(
        f"{text.split}.pairs.{text.pair}: {short} has {first - 1} lines, {long} has {first - 1 + surplus}; "
        f"{long}:{first} is the first line without a partner",
        surplus,
    )


def _open(path: Path) -> io.BufferedIOBase:
    try:
        return open_bytes(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _lines(path: Path, stream: io.BufferedIOBase, max_bytes: int) -> Iterator[bytes]:
    """Yield lines without their ends. ``max_bytes`` bounds memory even for a line that never ends."""
    rest = b""
    try:
        while block := stream.read(BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield _truncated(line, max_bytes).removesuffix(b"\r")
            rest = _truncated(rest, max_bytes)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise _unreadable(path, error) from error
    if rest:
        yield rest.removesuffix(b"\r")


def _truncated(line: bytes, max_bytes: int) -> bytes:
    return line[: max_bytes + 1] if max_bytes else line


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read to its end ({error}); is it damaged, truncated, or misnamed?")
