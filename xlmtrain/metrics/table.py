"""Tables of plain text, Markdown or HTML."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from html import escape
from typing import Literal

Style = Literal["text", "markdown", "html"]


def format_table(
    rows: Sequence[Sequence[str]],
    header: Sequence[str],
    style: Style = "text",
    left: Collection[int] = (0,),
    rules: Collection[int] = (),
) -> str:
    """Return ``rows`` under ``header`` as a table.

    Columns in ``left`` are aligned left, the others right. In plain text, a rule goes under the header and above each
    row whose index is in ``rules``. HTML gives the cells of the other columns the class ``n``.
    """
    if style == "html":
        return _html(rows, header, left)
    return "\n".join(_text(rows, header, left, rules) if style == "text" else _markdown(rows, header, left))


def _text(
    rows: Sequence[Sequence[str]], header: Sequence[str], left: Collection[int], rules: Collection[int]
) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    for index, row in enumerate([header, *rows], -1):
        if index in rules:
            yield rule
        cells = (
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        )
        yield "  ".join(cells).rstrip()
        if index < 0:
            yield rule


def _markdown(rows: Sequence[Sequence[str]], header: Sequence[str], left: Collection[int]) -> Iterator[str]:
    yield "| " + " | ".join(map(_markdown_cell, header)) + " |"
    yield "| " + " | ".join("---" if place in left else "---:" for place in range(len(header))) + " |"
    for row in rows:
        yield "| " + " | ".join(map(_markdown_cell, row)) + " |"


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _html(rows: Sequence[Sequence[str]], header: Sequence[str], left: Collection[int]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{'' if place in left else ' class=n'}>{escape(cell)}</{tag}>" for place, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', header)}</tr></thead><tbody>{body}</tbody></table>"
