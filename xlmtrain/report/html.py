"""The page around a report: one file without scripts or network, light or dark as the screen, one column on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from xlmtrain.metrics.table import format_table
from xlmtrain.report.charts import INSTALL, Chart, can_draw

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #595959; --ground: #fff; --raised: #f2f5f8; --rule: #dcdcdc;
  --warn: #fdf6e7; --error: #fdeee6; --ok: #e9f6f1; --right: #d5efe4; --wrong: #fde3d6; --shade: #0004; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e2e2; --faint: #a3a3a3; --ground: #16181b; --raised: #22262b; --rule: #3a3f45;
    --warn: #352c18; --error: #3d2418; --ok: #17332a; --right: #1c4a3a; --wrong: #54301f; --shade: #fff2; }
  svg { filter: invert(.91) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink); background: var(--ground);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .2rem 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .4rem; padding-top: .6rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p { margin: .4rem 0; max-width: 46rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .5rem; margin: .8rem 0;
  padding: 0; list-style: none; }
.tiles li { padding: .5rem .7rem; background: var(--raised); border-radius: 6px; font-size: .85rem; }
.tiles b { display: block; font-size: 1.15rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem 1.2rem; }
figure { margin: .4rem 0; min-width: 0; }
svg { display: block; width: 100%; height: auto; max-width: 36rem; stroke-linejoin: round; }
.pairs { margin: .4rem 0; padding-left: 2rem; font-size: .88rem; } .pairs li { margin: 0 0 .4rem; }
.pairs span { display: block; }
/* A shadow shows on which side a table can be scrolled. */
.wide { margin: .5rem 0; overflow-x: auto; background:
  linear-gradient(90deg, var(--ground) 40%, transparent) local no-repeat,
  linear-gradient(270deg, var(--ground) 40%, transparent) 100% local no-repeat,
  linear-gradient(90deg, var(--shade), transparent) no-repeat,
  linear-gradient(270deg, var(--shade), transparent) 100% no-repeat; background-size: 3rem, 3rem, 1rem, 1rem; }
.wide table { overflow-wrap: normal; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { font-weight: 600; background: var(--raised); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
.finding { margin: .5rem 0; padding: .5rem .8rem; border-left: 4px solid #E69F00; background: var(--warn); }
.error { border-color: #D55E00; background: var(--error); }
.ok { border-color: #009E73; background: var(--ok); }
.finding ul { margin: .2rem 0; padding-left: 1.2rem; }
.right { background: var(--right); border-radius: 3px; padding: 0 .15em; }
.wrong { background: var(--wrong); border-radius: 3px; padding: 0 .15em; }
.wrong s { color: var(--faint); }
details { margin: .5rem 0; } summary { cursor: pointer; font-weight: 600; }
.run { border-top: 2px solid var(--faint); margin-top: 2rem; }
@media (max-width: 34rem) { table { font-size: .8rem; } th, td { padding: .2rem .35rem; } }
footer { margin: 2rem 0 1rem; font-size: .8rem; color: var(--faint); }
"""


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
class Fold:
    """``blocks`` that are shown when their title is clicked."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Section:
    """A heading, or none, and what is under it."""

    title: str
    blocks: Sequence[Block]


Block = str | Table | Gallery | Html | Fold | Section
"""A part of a report; a ``str`` is a paragraph of plain text."""


def charts_in(blocks: Iterable[Block]) -> Iterator[Chart]:
    """Yield all charts, in the order of the page."""
    for block in blocks:
        if isinstance(block, Gallery):
            yield from block.charts
        elif isinstance(block, (Fold, Section)):
            yield from charts_in(block.blocks)


def page(title: str, blocks: Iterable[Block]) -> str:
    """Return a whole HTML document."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"{_GENERATOR}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(map(_render, blocks))
        + "\n</body></html>\n"
    )


def is_report(text: str) -> bool:
    """Return whether a file's ``text`` is a page that :func:`page` made."""
    return _GENERATOR in text[:1000]


def tiles(values: Iterable[tuple[str, str]]) -> Html:
    """Return (label, value) pairs as tiles."""
    inner = "".join(f"<li><b>{escape(value)}</b>{escape(label)}</li>" for label, value in values)
    return Html(f'<ul class="tiles">{inner}</ul>')


def _render(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, Table):
        return f'<div class="wide">{format_table(block.rows, block.header, "html", block.left)}</div>'
    if isinstance(block, Gallery):
        return _gallery(block)
    if isinstance(block, Html):
        return block.text
    inner = "\n".join(map(_render, block.blocks))
    if isinstance(block, Fold):
        return f"<details><summary>{escape(block.title)}</summary>{inner}</details>"
    return f"<section><h2>{escape(block.title)}</h2>\n{inner}\n</section>"


def _gallery(gallery: Gallery) -> str:
    charts = gallery.charts
    if not charts:
        return ""
    if not can_draw():
        items = "".join(f"<li>{escape(chart.title)}. {escape(chart.description)}</li>" for chart in charts)
        note = f"The charts are missing here: {escape(INSTALL)}. In words:"
        return f'<div class="finding">{note}<ul>{items}</ul></div>{gallery.beside}'
    figures = "".join(f"<figure>{chart.svg()}</figure>" for chart in charts)
    return f'<div class="charts">{figures}{gallery.beside}</div>'
