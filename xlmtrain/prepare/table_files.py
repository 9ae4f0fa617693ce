"""Read records of text from JSON lines, TSV, CSV and translation memories (TMX), plain or compressed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import Any

from xlmtrain.errors import DataError, damage_as
from xlmtrain.prepare.columns import Column, Record, text_of
from xlmtrain.text.text_files import MAX_LINE_BYTES, file_errors, open_bytes, read_bounded_lines
from xlmtrain.text.xml_files import text_in, tmx_units

_MISSING = object()
_SHOWN_CHARS = 40
_SHOWN_CODES = 20


def read_json_lines(path: Path, columns: Sequence[Column]) -> Iterator[Record]:
    """Yield the records of a file with one JSON object in each line; a blank line has empty text.

    The first object says which of a column's names is read.
    """
    names: list[str] = []
    for number, line in read_bounded_lines(path, "JSON lines"):
        place = f"{path}:{number}"
        if not line.strip():
            yield number, (b"",) * len(columns)
            continue
        with damage_as(DataError, f"{place}: not JSON", "; every line must be one object, as jq -c '.[]' writes them"):
            record = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=_distinct)
            if not isinstance(record, dict):
                raise TypeError("an array or a value alone")
        names = names or [_name_in(record, column) for column in columns]
        yield number, tuple(_json_text(record, *each, place) for each in zip(names, columns))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a name is there twice")
    return record


def _name_in(record: dict[str, Any], column: Column) -> str:
    return next((name for name in column.names if _at(record, name) is not _MISSING), column.names[0])


def _json_text(record: dict[str, Any], name: str, column: Column, place: str) -> bytes:
    if (value := _at(record, name)) is _MISSING:
        raise column.missing(place, _names(record))
    return text_of(value, place, name, () if isinstance(value, str) else _names(record))


def _at(record: dict[str, Any], name: str) -> Any:
    """Return the value under a name, or under the nested names between dots."""
    value: Any = record
    for part in (name,) if name in record else name.split("."):
        value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _names(record: dict[str, Any]) -> list[str]:
    """Return the names of a record, nested ones with dots."""
    inner = (
        [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name] for name, value in record.items()
    )
    return [*chain.from_iterable(inner)]


def read_tsv(path: Path, columns: Sequence[Column]) -> Iterator[Record]:
    """Yield the records of a table with cells between tabs, one row a line.

    Quotes are text, but for what spreadsheets write: a cell in quotes in which the inner ones are doubled, and tables
    whose header is in quotes, which are read like CSV.
    """
    lines = read_bounded_lines(path, "tab-separated text")
    head = [*islice(lines, 1)]
    rows: Iterable[tuple[int, list[str]]]
    quoted_names = {f'"{name}"'.encode() for column in columns for name in column.names}
    if any(quoted_names.intersection(line.split(b"\t")) for _, line in head):
        rows = _quoted_rows(path, chain(head, lines), "\t")
    else:
        rows = (
            (number, [_unquoted(cell) for cell in line.decode("utf-8", "surrogateescape").split("\t")])
            for number, line in chain(head, lines)
        )
    return _records(path, rows, columns)


def read_csv(path: Path, columns: Sequence[Column]) -> Iterator[Record]:
    """Yield the records of a table with commas, in which cells may be in double quotes."""
    return _records(path, _quoted_rows(path, read_bounded_lines(path, "comma-separated text"), ","), columns)


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    if '""' in inner and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _quoted_rows(path: Path, lines: Iterable[tuple[int, bytes]], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells); a cell in quotes may go over several lines."""
    begin, size = 1, 0

    def content() -> Iterator[str]:
        nonlocal size
        for _, line in lines:
            size += len(line) + 1
            if size > MAX_LINE_BYTES:
                raise DataError(f"{path}:{begin}: a row of more than {MAX_LINE_BYTES:,} bytes; is a quote not closed?")
            yield line.decode("utf-8", "surrogateescape") + "\n"

    csv.field_size_limit(MAX_LINE_BYTES + 1)
    reader = csv.reader(content(), delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}:{begin}: not a row of a table ({error}); is a quote not closed?") from None
        if cells is None:
            return
        yield begin, cells
        begin, size = reader.line_num + 1, 0


def _records(path: Path, rows: Iterable[tuple[int, list[str]]], columns: Sequence[Column]) -> Iterator[Record]:
    """Yield the records of a table, whose first row is a header if it has the name of a column.

    Raises DataError for another header further down.
    """
    rows = dropwhile(lambda row: not any(row[1]), rows)
    if (first := next(rows, None)) is None:
        return
    header = [cell.strip() for cell in first[1]]
    indices = [_index_in(header, column) for column in columns]
    for index, column in zip(indices, columns):
        if not 0 <= index < len(header) or (header[index] in column.names and header.count(header[index]) > 1):
            there = [cell if len(cell) <= _SHOWN_CHARS else f"{cell[:_SHOWN_CHARS]}..." for cell in header]
            raise column.missing(f"{path}:{first[0]}", there, ", or gives its number, from 1, if there is no header")
    has_header = any(column.is_heading(cell) for column in columns for cell in header)
    for number, cells in rows if has_header else chain([first], rows):
        if has_header and cells == first[1]:
            raise DataError(f"{path}:{number}: a header among the lines, as of files that were joined; remove it")
        if len(cells) == len(header):
            yield number, tuple(text_of(cells[index], f"{path}:{number}", header[index], header) for index in indices)
        elif not any(cells):
            yield number, (b"",) * len(columns)
        else:
            raise DataError(f"{path}:{number}: {len(cells)} cells, not {len(header)} as in the first row")


def _index_in(header: Sequence[str], column: Column) -> int:
    """Return the index of a column by the first of its names that is there, or is a number; -1 if none is."""
    for name in column.names:
        if name in header:
            return header.index(name)
        if name.isdecimal():
            return int(name) - 1
    return -1


def read_tmx(path: Path, columns: Sequence[Column]) -> Iterator[Record]:
    """Yield the records of a translation memory; the names of a column are codes of a language. A unit without a
    language has empty text."""
    found, codes = [False] * len(columns), dict[str, None]()
    with file_errors(path, "translation memory"), open_bytes(path) as stream:
        for number, segments in tmx_units(stream, path):
            texts = [next((t for name in column.names if (t := text_in(segments, name))), "") for column in columns]
            found = [before or bool(text) for before, text in zip(found, texts)]
            if len(codes) < _SHOWN_CODES:
                codes.update(dict.fromkeys(segments))
            yield number, tuple(text_of(text, f"{path}:{number}", "", ()) for text in texts)
    for column, is_there in zip(columns, found):
        if codes and not is_there:
            raise column.missing(str(path), [*codes])
