"""The page around a report: one file without scripts or network, light or dark as the screen, one column on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from xlmtrain.metrics.table import format_table
from xlmtrain.report.charts import INSTALL, Chart, can_draw

_STYLE = Path(__file__).with_name("page.css")
_GENERATOR = '<meta name="generator" content="xlmtrain">'


@dataclass(frozen=True)
class Table:
    """``rows`` of plain text; the columns in ``left`` are aligned left, the others right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[int] = (0,)


@dataclass(frozen=True)
class Gallery:
    """Charts, and the markup ``beside`` them, in columns where they fit."""

    charts: Sequence[Chart]
    beside: str = ""


@dataclass(frozen=True)
class Html:
    """Ready markup."""

    text: str


@dataclass(frozen=True)
class Section:
    """A heading and what is under it; ``folded``: shown when the heading is clicked."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


Block = str | Table | Gallery | Html | Section
"""A part of a report; a ``str`` is a paragraph of plain text."""


def charts_in(blocks: Iterable[Block]) -> Iterator[Chart]:
    """Yield all charts, in the order of the page."""
    for block in blocks:
        if isinstance(block, Gallery):
            yield from block.charts
        elif isinstance(block, Section):
            yield from charts_in(block.blocks)


def page(title: str, blocks: Iterable[Block]) -> str:
    """Return a whole HTML document."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{_GENERATOR}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{_STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body>\n{_rendered(blocks)}\n</body></html>\n"
    )


def is_report(text: str) -> bool:
    """Return whether a file's ``text`` is a page that :func:`page` made."""
    return _GENERATOR in text[:1000]


def tiles(values: Iterable[tuple[str, str]]) -> Html:
    """Return (label, value) pairs as tiles."""
    inner = "".join(f"<li><b>{escape(value)}</b>{escape(label)}</li>" for label, value in values)
    return Html(f'<ul class="tiles">{inner}</ul>')


def _rendered(blocks: Iterable[Block]) -> str:
    return "\n".join(map(_render, blocks))


def _render(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, Table):
        return f'<div class="wide">{format_table(block.rows, block.header, "html", block.left)}</div>'
    if isinstance(block, Gallery):
        return _gallery(block)
    if isinstance(block, Html):
        return block.text
    title, inner = escape(block.title), _rendered(block.blocks)
    if block.folded:
        return f"<details><summary>{title}</summary>{inner}</details>"
    return f"<section><h2>{title}</h2>\n{inner}\n</section>"


def _gallery(gallery: Gallery) -> str:
    if not gallery.charts:
        return ""
    if not can_draw():
        items = "".join(f"<li>{escape(chart.title)}. {escape(chart.description)}</li>" for chart in gallery.charts)
        note = f"The charts are missing here: {escape(INSTALL)}. In words:"
        return f'<div class="finding">{note}<ul>{items}</ul></div>{gallery.beside}'
    figures = "".join(f"<figure>{chart.svg()}</figure>" for chart in gallery.charts)
    return f'<div class="charts">{figures}{gallery.beside}</div>'
