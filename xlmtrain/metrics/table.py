"""Tables of plain text, Markdown or HTML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from typing import Literal


def format_table(
    rows: Sequence[Sequence[str]],
    header: Sequence[str],
    style: Literal["text", "markdown", "html"] = "text",
    left: Collection[int] = (0,),
    rules: Collection[int] = (),
) -> str:
    """Return ``rows`` under ``header`` as a table.

    Columns in ``left`` are aligned left, the others right. In plain text, a rule goes under the header and above each
    row whose index is in ``rules``. HTML gives the cells of the other columns the class ``n``.
    """
    if style == "html":
        body = "".join(_html_row("td", row, left) for row in rows)
        return f"<table><thead>{_html_row('th', header, left)}</thead><tbody>{body}</tbody></table>"
    if style == "markdown":
        marks = ["---" if column in left else "---:" for column in range(len(header))]
        cells = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in (header, *rows)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], marks, *cells[1:]))
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = []
    for index, row in enumerate((header, *rows), -1):
        aligned = (
            cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        lines += [rule] * (index == 0 or index in rules)
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines if rows else [*lines, rule])


def decimals(value: float, digits: int = 2) -> str:
    """Format a number with ``digits`` decimals; a perplexity that has run away (a million or more) by its exponent."""
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.1e}"


def _html_row(tag: str, cells: Sequence[str], left: Collection[int]) -> str:
    marked = (f"<{tag}{'' if i in left else ' class=n'}>{escape(cell)}</{tag}>" for i, cell in enumerate(cells))
    return f"<tr>{''.join(marked)}</tr>"
