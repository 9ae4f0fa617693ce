"""The columns of a table that hold the text, and the errors of records without text in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xlmtrain.errors import DataError

_HEADINGS = ("text", "sentence", "source", "target", "src", "tgt")
Record = tuple[int, tuple[bytes, ...]]
"""Number of a record, which is its first line or its row from 1, and a text for each column."""


@dataclass(frozen=True)
class Column:
    """Column of the text in one language. ``names``: of which the first that a file has is read, dots in them leading
    into nested columns; ``setting``: the key path that names another one; ``language``: of the text."""

    names: tuple[str, ...]
    setting: str
    language: str

    def missing(self, place: str, there: Sequence[str], advice: str = "") -> DataError:
        """Return the error for a file or record that has not one such column; ``place``: its path and number."""
        shown = ", ".join(there[:30]) + (", ..." if len(there) > 30 else "") if there else "none"
        problem = f"no column {' or '.join(self.names)}"
        if twice := [name for name in self.names if there.count(name) > 1]:
            problem = f"several columns {twice[0]}"
        return DataError(f"{place}: {problem}; there are: {shown[:1000]}; {self.setting}=... names it{advice}")

    def is_heading(self, cell: str) -> bool:
        """Return whether a cell of the first row is the name of a column, so that the row is a header."""
        return cell in self.names or cell.casefold() in (*_HEADINGS, self.language.casefold())


def text_of(value: Any, place: str, name: str, there: Sequence[str]) -> bytes:
    """Return the text of a cell. Characters that UTF-8 does not have become bytes that are not UTF-8, as in the file.

    Raises DataError, with ``place``, the ``name`` of the column and those that are ``there``, if it is null or no text.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        kind = "null" if value is None else f"{type(value).__name__}, not text"
        raise DataError(f"{place}: column {name} is {kind} (columns: {', '.join(there)[:1000]})")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, as JSON can write it
        return value.encode("utf-8", "surrogatepass")
