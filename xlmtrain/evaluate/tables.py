"""Tables of text between tabs, and the columns of labelled text: known by their names, or given by a setting."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from xlmtrain.errors import DataError
from xlmtrain.text.text_files import BOM, file_problem, read_lines

log = logging.getLogger(__name__)
Row = tuple[int, list[str]]
"""Line number from 1, cells."""

_HEAD_ROWS = 1000
MIN_DISTINCT = 10
"""From this many lines on, a label that never recurs is none."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
# Names of columns in XNLI, XNLI-MT, PAWS-X, MultiNLI, SNLI, GLUE and common exports, the preferred label first.
_LABELS = ("gold_label", "label", "labels", "class", "category", "sentiment", "intent", "quality", "is_duplicate")
_SCORES = ("score", "similarity", "rating")
_TEXTS = (
    *("text", "sentence", "sentence1", "sentence2", "premise", "hypo", "hypothesis", "question", "question1"),
    *("question2", "#1 string", "#2 string", "utterance", "utt", "tweet", "review", "comment"),
)
_LANGUAGES = ("language", "lang")


@dataclass(frozen=True)
class Columns:
    """Number of columns, and the indices of those that are used; ``label`` is None in a table without labels.

    ``no_label``: the cell of an example without one.
    """

    count: int
    label: int | None
    texts: tuple[int, ...]
    language: int | None
    has_header: bool
    no_label: str = ""


def read_rows(path: Path, setting: str) -> Iterator[Row]:
    """Yield the rows of a table without blank lines; ``setting``: the option that named it, for messages.

    A column in which programs for tables put quotes is read without them: in the first lines all its cells are in
    double quotes, or those with a quote inside, which is doubled, or with a comma. In published files quotes are text.
    Files that were joined may have a byte-order mark at any line. Raises DataError as
    :func:`~xlmtrain.text.text_files.read_lines`.
    """
    if problem := file_problem(path):
        raise DataError(f"{setting}: {problem}")
    content = read_lines(path, "tab-separated text")
    lines = ((number, line.lstrip(BOM).split("\t")) for number, line in content if line.strip())
    rows = ((number, [cell.strip() for cell in cells]) for number, cells in lines)
    head = list(islice(rows, _HEAD_ROWS))
    width = max((len(cells) for _, cells in head), default=0)
    sides = ([cells[i] for _, cells in head[1:] or head if i < len(cells) and cells[i]] for i in range(width))
    quoted = [_is_quoted(side) for side in sides]
    for number, cells in chain(head, rows):
        yield number, [_unquoted(cell) if i < width and quoted[i] else cell for i, cell in enumerate(cells)]


def _is_quoted(column: Sequence[str]) -> bool:
    marked = [cell for cell in column if '"' in cell]
    doubled = ['""' in cell[1:-1] for cell in marked]
    as_written = any(doubled) and all(has or "," in cell or cell == '""' for has, cell in zip(doubled, marked))
    return bool(marked) and all(map(_QUOTED.fullmatch, marked)) and (as_written or len(marked) == len(column))


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"').strip() if _QUOTED.fullmatch(cell) else cell


def read_labelled_rows(
    path: Path,
    setting: str,
    columns: Sequence[str],
    numeric: bool = False,
    is_label: Callable[[str], bool] | None = None,
) -> tuple[Columns, Iterator[Row]]:
    """Return the columns of labelled text and its rows without the header.

    ``columns``: what each column holds, ``label``, ``text``, ``language`` or ``_``; empty: found by the names in the
    first line, or label and text in this order. ``numeric``: labels are numbers, which need not recur.
    ``is_label``: given where labels may be missing; without a header, a first column of such cells is the label, else
    every column is text. Raises DataError, with file, line and a proposal, if that fails, and for a header further
    down.
    """
    rows = read_rows(path, setting)
    head = list(islice(rows, _HEAD_ROWS))
    if not head:
        raise DataError(f"{setting}: {path} is empty")
    where = head, path, setting, numeric
    found = _found_without_labels(head, is_label) if is_label and not columns else None
    found = found or (_given(columns, *where) if columns else _found(*where))
    return found, _below_header(found, chain(head, rows), path)


def _found_without_labels(head: Sequence[Row], is_label: Callable[[str], bool]) -> Columns | None:
    """Return the columns of text without labels, or of lines of a known label and text; None for other tables."""
    first = head[0][1]
    names = [cell.casefold() for cell in first]
    texts = tuple(i for i, name in enumerate(names) if name in _TEXTS and len(head) > 1)
    if set(names) & {*_LABELS, *_SCORES} and texts:
        return None
    if texts:
        language = next((i for i, name in enumerate(names) if name in _LANGUAGES), None)
        return Columns(len(first), None, texts, language, True) if len(texts) <= 2 else None
    if len(first) > 1 and all(is_label(cells[0]) for _, cells in head):
        return Columns(len(first), 0, tuple(range(1, len(first))), None, False) if len(first) <= 3 else None
    return Columns(len(first), None, tuple(range(len(first))), None, False) if len(first) <= 2 else None


def _below_header(columns: Columns, rows: Iterator[Row], path: Path) -> Iterator[Row]:
    header = next(rows)[1] if columns.has_header else None
    for number, cells in rows:
        if cells == header or (len(cells) == columns.count and _are_names(cells, columns)):
            raise DataError(f"{path}:{number}: a header among the lines, as of files that were joined; remove it")
        yield number, cells


def _are_names(cells: Sequence[str], columns: Columns) -> bool:
    texts = [cells[place].casefold() for place in columns.texts]
    if columns.label is None:
        return columns.has_header and all(text in _TEXTS for text in texts)
    return cells[columns.label].casefold() in (*_LABELS, *_SCORES) and all(text in _TEXTS for text in texts)


def is_number(cell: str) -> bool:
    """Return whether a cell is a finite number."""
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _given(columns: Sequence[str], head: Sequence[Row], path: Path, setting: str, numeric: bool) -> Columns:
    number, first = head[0]
    if len(first) != len(columns):
        raise DataError(f"{path}:{number}: {len(first)} columns, {_columns_setting(setting)} names {len(columns)}")
    texts = tuple(i for i, name in enumerate(columns) if name == "text")
    language = columns.index("language") if "language" in columns else None
    has_header = any(first[i].casefold() in _TEXTS for i in texts)
    if "label" not in columns:
        return Columns(len(columns), None, texts, language, has_header)
    label = columns.index("label")
    has_header = has_header or first[label].casefold() in _LABELS
    if numeric:
        has_header = not is_number(first[label])
    elif not has_header and _is_odd(head, label):
        log.warning("%s:%d: taken as a header, as no other line has the label %r", path, number, first[label])
        has_header = True
    return Columns(len(columns), label, texts, language, has_header, _no_label(first[label]))


def _found(head: Sequence[Row], path: Path, setting: str, numeric: bool) -> Columns:
    number, first = head[0]
    names = {i: cell.casefold() for i, cell in enumerate(first) if cell not in (cells[i] for cells in _others(head, i))}
    known = (*_SCORES, *_LABELS) if numeric else _LABELS
    labels = sorted((i for i in names if names[i] in known), key=lambda i: known.index(names[i]))
    texts = tuple(i for i in names if names[i] in _TEXTS)
    language = next((i for i in names if names[i] in _LANGUAGES), None)
    if labels and not texts and len(first) == 2 and "label" in names[labels[0]]:
        texts = (1 - labels[0],)
    if labels and len(texts) in (1, 2):
        return Columns(len(first), labels[0], texts, language, True, _no_label(first[labels[0]]))
    where, advice = f"{path}:{number}", _advice(head, setting)
    if len(first) == 1:
        kind = "JSON" if first[0].startswith(("{", "[")) else "commas" if "," in first[0] else "no tab"
        raise DataError(f"{where}: a label, a tab and a text are needed, here is {kind}: {first[0][:60]!r}")
    if labels or texts:
        missing = "two texts at most" if labels and texts else "a known label" if texts else "a known text"
        raise DataError(f"{where}: a header ({', '.join(first)}) without {missing}; {advice}")
    if len(first) > 3:
        raise DataError(f"{where}: {len(first)} columns without known names; {advice}")
    if numeric:
        if not is_number(first[0]):
            raise DataError(f"{where}: {first[0]!r} is not a number; {advice}")
        return Columns(len(first), 0, tuple(range(1, len(first))), None, False)
    if _is_odd(head, 0):
        raise DataError(
            f"{where}: {first[0]!r} is the label of this line only, so this looks like a header; remove it or {advice}"
        )
    distinct = [len({cells[i] for _, cells in head if i < len(cells)}) for i in range(len(first))]
    if min(distinct) < distinct[0] or distinct[0] == len(head) >= MIN_DISTINCT:
        raise DataError(
            f"{where}: column 1 has {distinct[0]} different labels in the first {len(head)} lines; {advice}"
        )
    return Columns(len(first), 0, tuple(range(1, len(first))), None, False)


def _no_label(name: str) -> str:
    """Return the cell that stands for no label in a column of this name: in MultiNLI the annotators may not agree."""
    return "-" if name.casefold() == "gold_label" else ""


def _others(head: Sequence[Row], column: int) -> Iterator[list[str]]:
    """Yield the rows other than the first that have the column."""
    return (cells for _, cells in head if column < len(cells) and cells != head[0][1])


def _is_odd(head: Sequence[Row], column: int) -> bool:
    """Return whether the first line alone has its value in a column, while all other values recur."""
    counts = Counter(cells[column] for cells in _others(head, column))
    return len(counts) > 1 and min(counts.values()) > 1 and head[0][1][column] not in counts


def _columns_setting(setting: str) -> str:
    return f"{setting.partition('.')[0]}.columns"


def _advice(head: Sequence[Row], setting: str) -> str:
    """Return how to name the columns; proposes the one with the fewest values as the label, long ones as texts."""
    width = len(head[0][1])
    sides = [[cells[i] for cells in _others(head, i)] or [head[0][1][i]] for i in range(width)]
    kinds = [len(set(side)) for side in sides]
    several = [count for count, side in zip(kinds, sides) if 1 < count < max(len(side), MIN_DISTINCT)]
    if not several:
        return f"no column looks like labels; name the columns by '{_columns_setting(setting)}=[...]' if there are any"
    label = kinds.index(min(several))
    texts = sorted((i for i in range(width) if i != label), key=lambda i: -sum(map(len, sides[i])) / len(sides[i]))
    long = [i for i in texts if kinds[i] > max(kinds) / 2 and sum(" " in c for c in sides[i]) > len(sides[i]) / 2]
    roles = ["label" if i == label else "text" if i in (long[:2] or texts[:1]) else "_" for i in range(width)]
    return f"name the columns, perhaps '{_columns_setting(setting)}=[{', '.join(roles)}]'"
