"""Find the raw text files and read them in chunks of aligned lines."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.data.format import SPLITS
from xlmtrain.errors import DataError
from xlmtrain.text.text_files import file_problem, read_byte_lines


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


def find_texts(config: PrepareConfig) -> list[RawText]:
    """Return the files of the settings: sorted within a pattern, patterns in the given order.

    Raises DataError with the key path if a pattern matches no file, or different files for the two languages.
    """
    return [
        text
        for split in SPLITS
        for kind in ("mono", "pairs")
        for key, patterns in getattr(getattr(config, split), kind).items()
        for pattern in patterns
        for text in _texts_of(split, kind, key, pattern)
    ]


def without_repeats(texts: Sequence[RawText]) -> tuple[list[RawText], list[str]]:
    """Return each text once, whatever the names and links that lead to its files, and a note on each that is left out.

    Raises DataError for a file that is given for two languages.
    """
    kept: dict[tuple[object, ...], RawText] = {}
    languages: dict[tuple[int, int], tuple[str, Path]] = {}
    notes = []
    for text in texts:
        identities = [(stat.st_dev, stat.st_ino) for stat in (path.stat() for path in text.paths)]
        for identity, language, path in zip(identities, text.languages, text.paths):
            other, its_path = languages.setdefault(identity, (language, path))
            if other != language:
                raise DataError(f"{text.split}: {path} is given for {language}, and as {its_path} for {other}")
        first = kept.setdefault((text.split, text.languages, *identities), text)
        if first is not text:
            names, known = (" and ".join(map(str, one.paths)) for one in (text, first))
            alias = "" if known == names else f", also as {known}"
            key_path = f"{text.split}.{'pairs' if text.pair else 'mono'}.{text.pair or text.languages[0]}"
            notes.append(f"{key_path}: {names} is given twice{alias}; it is read once")
    return list(kept.values()), notes


def _texts_of(split: str, kind: str, key: str, pattern: str) -> list[RawText]:
    """Return the texts of one pattern of a language or pair ``key``."""
    key_path, languages = f"{split}.{kind}.{key}", tuple(key.split("-"))
    if kind == "pairs" and "{lang}" not in pattern:
        raise DataError(f"{key_path}: {pattern} must contain {{lang}}, which stands for either language")
    sides = [_matches(pattern, language, key_path) for language in languages]
    for one, other in zip(sides, reversed(sides)):
        if unpaired := [path for wildcards, path in one.items() if wildcards not in other]:
            raise DataError(f"{key_path}: {unpaired[0]} has no counterpart in the other language")
    return [RawText(split, languages, tuple(side[wildcards] for side in sides)) for wildcards in sides[0]]


def _matches(pattern: str, language: str, key_path: str) -> dict[tuple[str, ...], Path]:
    """Return the files of a pattern, sorted, keyed by the text that the wildcards match."""
    pattern = str(Path(pattern.replace("{lang}", language)))  # as glob returns paths; a link may stand before ..
    wildcards = {"*": "([^/]*)", "?": "([^/])"}
    expression = re.compile("".join(wildcards.get(char, re.escape(char)) for char in pattern))
    found = sorted(path for path in glob.glob(pattern.replace("[", "[[]")) if Path(path).is_file())
    if not found:
        if Path(pattern).exists():
            raise DataError(f"{key_path}: {file_problem(Path(pattern))}")
        raise DataError(f"{key_path}: no file matches {pattern} (looked in {Path.cwd()})")
    return {match.groups(): Path(match.string) for path in found if (match := expression.fullmatch(path))}


@dataclass(frozen=True)
class Chunk:
    """Consecutive lines of a raw text: ``lines`` of each language, as many of one as of the other, without line ends;
    the number of the ``first``, from 1."""

    lines: tuple[list[bytes], ...]
    first: int = 1

    @property
    def size(self) -> int:
        """Bytes, line ends included."""
        return sum(len(line) + 1 for side in self.lines for line in side)

    def without(self, reasons: Mapping[int, str]) -> Chunk:
        """Return the chunk without the lines of these indices, on either side."""
        if not reasons:
            return self
        kept = ([line for index, line in enumerate(side) if index not in reasons] for side in self.lines)
        return Chunk(tuple(kept), self.first)


class UnequalLengths(DataError):
    """The two files of a pair have different numbers of lines; ``surplus``: the difference."""

    def __init__(self, message: str, surplus: int) -> None:
        super().__init__(message)
        self.surplus = surplus


def read_chunks(text: RawText, target_bytes: int, max_line_bytes: int = 0, is_own: bool = False) -> Iterator[Chunk]:
    """Yield the lines of ``text`` in order, in chunks of about ``target_bytes``.

    ``max_line_bytes``, ``is_own``: as in :func:`~xlmtrain.text.text_files.read_byte_lines`. Raises UnequalLengths after
    the last chunk if one file of a pair has more lines, DataError if a file cannot be read to its end.
    """
    sides = [read_byte_lines(path, max_line_bytes, is_own=is_own) for path in text.paths]
    lines: tuple[list[bytes], ...] = tuple([] for _ in sides)
    size, first = 0, 1
    for aligned in zip_longest(*sides):
        if None in aligned:
            break
        for side, line in zip(lines, aligned):
            side.append(line)
            size += len(line) + 1
        if size >= target_bytes:
            yield Chunk(lines, first)
            size, first = 0, first + len(lines[0])
            lines = tuple([] for _ in sides)
    else:
        aligned = ()
    if size:
        yield Chunk(lines, first)
    if aligned:
        end, longer = first + len(lines[0]), 0 if aligned[1] is None else 1
        surplus = 1 + sum(1 for _ in sides[longer])
        short, long = text.paths[1 - longer], text.paths[longer]
        raise UnequalLengths(
            f"{text.split}.pairs.{text.pair}: {short} has {end - 1} lines, {long} has {end - 1 + surplus}; "
            f"{long}:{end} is the first line without a partner",
            surplus,
        )
