"""The columns of a table that hold the text, and the errors of records without text in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xlmtrain.errors import DataError

Record = tuple[int, tuple[bytes, ...]]
"""Number of a record, which is its first line or its row from 1, and a text for each column."""


@dataclass(frozen=True)
class Column:
    """Column of the text in one language. ``names``: of which the first that a file has is read, dots in them leading
    into nested columns; ``setting``: the key path that names another one."""

    names: tuple[str, ...]
    setting: str

    def missing(self, place: str, there: Sequence[str], advice: str = "") -> DataError:
        """Return the error for a file or record with other columns; ``place``: its path and number."""
        shown = ", ".join(there[:30]) + (", ..." if len(there) > 30 else "") if there else "none"
        names = " or ".join(self.names)
        return DataError(f"{place}: no column {names}; there are: {shown[:1000]}; {self.setting}=... names it{advice}")


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
