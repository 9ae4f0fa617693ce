"""Find the raw text files and read them in chunks of aligned lines.

Every file is read as records: a text for each language, with the number of its line or row for messages. A line of a
plain file is a record; the readers of tables are in :mod:`xlmtrain.prepare.table_files` and
:mod:`xlmtrain.prepare.arrow_files`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.data.format import SPLITS
from xlmtrain.errors import DataError
from xlmtrain.prepare.arrow_files import ARROW_MAGICS, PARQUET_MAGIC, read_arrow, read_parquet, saved_dataset_files
from xlmtrain.prepare.columns import Column, Record
from xlmtrain.prepare.file_patterns import expand_braces, matching_paths
from xlmtrain.prepare.table_files import read_csv, read_json_lines, read_tmx, read_tsv
from xlmtrain.text.text_files import COMPRESSED_NAMES, file_errors, file_problem, read_byte_lines

Reader = Callable[[Path, Sequence[Column]], Iterator[Record]]
_TABLES: dict[str, Reader] = {
    **{".jsonl": read_json_lines, ".json": read_json_lines, ".ndjson": read_json_lines},
    **{".tsv": read_tsv, ".csv": read_csv, ".tmx": read_tmx, ".parquet": read_parquet, ".arrow": read_arrow},
}

_COMPARED = 100
"""Records by which two columns are compared."""
_LINE_END = re.compile(rb"\r?\n")


@dataclass(frozen=True)
class RawText:
    """One file of a language, or the two aligned files of a pair, in the order of ``languages``, or a table with both.

    ``columns``: of each language, if the files are tables. ``documents``: blank lines are borders of documents.
    """

    split: str
    languages: tuple[str, ...]
    paths: tuple[Path, ...]
    columns: tuple[Column, ...] = ()
    documents: bool = False

    @property
    def pair(self) -> str | None:
        """Name of the pair, None for a single language."""
        return "-".join(self.languages) if len(self.languages) > 1 else None

    @property
    def sides(self) -> tuple[Path, ...]:
        """File of each language."""
        return self.paths if len(self.paths) == len(self.languages) else self.paths * len(self.languages)


def find_texts(config: PrepareConfig) -> list[RawText]:
    """Return the files of the settings: sorted within a pattern, patterns in the given order.

    Raises DataError with the key path if a pattern matches no file, or different files for the two languages, and for
    columns of which no table is there.
    """
    texts = [
        text
        for split in SPLITS
        for kind in ("mono", "pairs")
        for key, patterns in getattr(getattr(config, split), kind).items()
        for given in patterns
        for pattern in expand_braces(given)
        for text in _texts_of(config, split, kind, key, pattern)
    ]
    used = {column.setting for text in texts for column in text.columns}
    used |= {f"columns.{language}" for text in texts if text.columns for language in text.languages}
    if idle := [name for name in config.columns if f"columns.{name}" not in used]:
        raise DataError(f"columns.{idle[0]}: there is no table with such a column; leave it out")
    return texts


def without_repeats(texts: Sequence[RawText]) -> tuple[list[RawText], list[str]]:
    """Return each text once, whatever the names and links that lead to its files, and a note on each that is left out.

    Raises DataError for a file, or a column of a table, that is given for two languages.
    """
    kept: dict[tuple[object, ...], RawText] = {}
    readers: dict[tuple[int, int], list[tuple[RawText, int]]] = {}
    notes = []
    for text in texts:
        identities = [(stat.st_dev, stat.st_ino) for stat in (path.stat() for path in text.paths)]
        for side, language in enumerate(text.languages):
            for other, at in readers.setdefault(identities[side % len(identities)], []):
                if other.languages[at] != language and _first_texts(other, at) == _first_texts(text, side):
                    given = f"{'the same column of ' if text.columns else ''}{text.sides[side]} is given for {language}"
                    raise DataError(f"{text.split}: {given}, and as {other.sides[at]} for {other.languages[at]}")
            readers[identities[side % len(identities)]].append((text, side))
        first = kept.setdefault((text.split, text.languages, *identities), text)
        if first is not text:
            names, known = (" and ".join(map(str, files.paths)) for files in (text, first))
            alias = "" if known == names else f", also as {known}"
            key_path = f"{text.split}.{'pairs' if text.pair else 'mono'}.{text.pair or text.languages[0]}"
            notes.append(f"{key_path}: {names} is given twice{alias}; it is read once")
    return list(kept.values()), notes


def _first_texts(text: RawText, side: int) -> tuple[str, ...] | list[bytes]:
    """Return the column of a language, and its first texts, by which another name of it is known."""
    if not text.columns:
        return ()
    file = min(side, len(text.paths) - 1)
    if len(text.paths) < len(text.languages):
        return text.columns[side].names
    return [lines[0] for _, lines in islice(_read_records(text, file, 0, False), _COMPARED)]


def _texts_of(config: PrepareConfig, split: str, kind: str, key: str, pattern: str) -> list[RawText]:
    """Return the texts of one pattern of a language or pair ``key``."""
    key_path, languages = f"{split}.{kind}.{key}", tuple(key.split("-"))
    names = languages if kind == "mono" or "{lang}" in pattern else languages[:1]
    sides = [_matches(pattern, name, key_path) for name in names]
    for side, other in zip(sides, reversed(sides)):
        if unpaired := [path for wildcards, path in side.items() if wildcards not in other]:
            raise DataError(f"{key_path}: {unpaired[0]} has no counterpart in the other language")
    texts = []
    for wildcards in sides[0]:
        paths = tuple(side[wildcards] for side in sides)
        is_table = any(_table_reader(path) for path in paths)
        if len(paths) < len(languages) and not is_table:
            raise DataError(
                f"{key_path}: {paths[0]} must contain {{lang}}, which stands for either language, in its name, or be a "
                f"table of both ({', '.join(_TABLES)})"
            )
        is_alone = len(paths) == len(languages)
        columns = tuple(_column(config, language, is_alone) for language in languages if is_table)
        texts.append(RawText(split, languages, paths, columns, config.documents and kind == "mono"))
    return texts


def _column(config: PrepareConfig, language: str, is_alone: bool) -> Column:
    """Return the column of a language; ``is_alone``: in a file of no other language."""
    name = config.columns.get(language, language)
    if not is_alone:
        return Column((name,), f"columns.{language}", language)
    names = (config.columns.get("text", "text"), name)
    is_given = "text" in config.columns and language not in config.columns
    return Column(names[:1] if is_given else names, "columns.text", language)


def _matches(pattern: str, language: str, key_path: str) -> dict[tuple[object, ...], Path]:
    """Return the files of a pattern, sorted, keyed by the text that the wildcards match."""
    pattern = pattern.replace("{lang}", language)
    found: dict[tuple[object, ...], Path] = {}
    for path, wildcards in matching_paths(pattern):
        files = saved_dataset_files(path) if path.is_dir() else [path] if path.is_file() else []
        found |= {(*wildcards, index): file for index, file in enumerate(files)}
    if not found:
        if Path(pattern).exists():
            raise DataError(f"{key_path}: {file_problem(Path(pattern))}")
        raise DataError(f"{key_path}: no file matches {pattern} (looked in {Path.cwd()})")
    return found


def _table_reader(path: Path) -> Reader | None:
    """Return the reader of a table, known by the first bytes of a file or by its name; None for lines of text."""
    with file_errors(path, "text"), path.open("rb") as file:
        head = file.read(6)
    if head.startswith(PARQUET_MAGIC):
        return read_parquet
    if head.startswith(ARROW_MAGICS):
        return read_arrow
    suffixes = [suffix for suffix in map(str.lower, path.suffixes) if suffix not in COMPRESSED_NAMES]
    return _TABLES.get(suffixes[-1]) if suffixes else None


@dataclass(frozen=True)
class Chunk:
    """Consecutive lines of a raw text: ``lines`` of each language, as many of one as of the other, without line ends;
    the ``numbers``, from 1, of the lines or rows of each file that they are from."""

    lines: tuple[list[bytes], ...]
    numbers: tuple[list[int], ...]

    @property
    def size(self) -> int:
        """Bytes, line ends included."""
        return sum(len(line) + 1 for side in self.lines for line in side)

    def number(self, side: int, index: int) -> int:
        """Return the number of the line or row of a text in its file."""
        return self.numbers[min(side, len(self.numbers) - 1)][index]

    def without(self, reasons: Mapping[int, str]) -> Chunk:
        """Return the chunk without the lines of these indices, on either side."""
        if not reasons:
            return self
        kept = [index for index in range(len(self.lines[0])) if index not in reasons]
        lines = tuple([side[index] for index in kept] for side in self.lines)
        return Chunk(lines, tuple([side[index] for index in kept] for side in self.numbers))


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
    files = [_read_records(text, file, max_line_bytes, is_own) for file in range(len(text.paths))]
    chunk, size, count = _empty(text), 0, 0
    for records in zip_longest(*files):
        if None in records:
            break
        sides = iter(chunk.lines)
        for numbers, (number, lines) in zip(chunk.numbers, records):
            numbers.append(number)
            for line in lines:
                next(sides).append(line)
                size += len(line) + 1
        count += 1
        if size >= target_bytes:
            yield chunk
            chunk, size = _empty(text), 0
    else:
        records = ()
    if size:
        yield chunk
    if records:
        longer = 0 if records[1] is None else 1
        surplus = 1 + sum(1 for _ in files[longer])
        short, long = text.paths[1 - longer], text.paths[longer]
        raise UnequalLengths(
            f"{text.split}.pairs.{text.pair}: {short} has {count} lines, {long} has {count + surplus}; "
            f"{long}:{records[longer][0]} is the first line without a partner",
            surplus,
        )


def _empty(text: RawText) -> Chunk:
    return Chunk(tuple([] for _ in text.languages), tuple([] for _ in text.paths))


def _read_records(text: RawText, file: int, max_line_bytes: int, is_own: bool) -> Iterator[Record]:
    """Yield the records of one of the files. A text of a pair is one line; else each line of a text is a record.

    A document, which is a row of a table, ends with a blank line.
    """
    path, number = text.paths[file], 0
    if not text.columns or (reader := _table_reader(path)) is None:
        for number, line in enumerate(read_byte_lines(path, max_line_bytes, is_own=is_own), start=1):
            yield number, (line,)
        if text.documents:
            yield number, (b"",)
        return
    for number, texts in reader(path, text.columns if len(text.paths) == 1 else text.columns[file : file + 1]):
        if text.pair:
            yield number, tuple(_LINE_END.sub(b" ", line) if b"\n" in line else line for line in texts)
        else:
            for line in texts[0].removesuffix(b"\n").split(b"\n"):
                if not text.documents or line.strip():
                    yield number, (line.removesuffix(b"\r"),)
            if text.documents:
                yield number, (b"",)
