"""The page around the report: one file, no network, dark on light, one column on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: #1a1a1a; background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .2rem 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .4rem; padding-top: .6rem; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p { margin: .4rem 0; max-width: 46rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .5rem; margin: .8rem 0; padding: 0; list-style: none; }
.tiles li { flex: 1 1 8.5rem; padding: .5rem .7rem; background: #f2f5f8; border-radius: 6px; font-size: .85rem; }
.tiles b { display: block; font-size: 1.15rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.small { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(45%, 11rem), 1fr)); gap: .6rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; font-size: .9rem; }
svg { display: block; width: 100%; height: auto; max-width: 40rem; font-size: 11px; fill: #333; }
svg .grid { stroke: #e6e6e6; } svg .axis { stroke: #777; fill: none; } svg .name { fill: #555; }
svg .mark { font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .82rem; }
.legend i { display: inline-block; width: 1.3em; margin-right: .35em; vertical-align: .25em; border-top: 3px solid; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .5rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e2e2e2; text-align: left; vertical-align: top; }
th { font-weight: 600; background: #f7f7f7; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
.finding { margin: .5rem 0; padding: .5rem .8rem; border-left: 4px solid #E69F00; background: #fdf6e7; }
.grave { border-color: #D55E00; background: #fdeee6; }
.well { border-color: #009E73; background: #e9f6f1; }
.finding ul { margin: .2rem 0; padding-left: 1.2rem; }
.right { background: #d5efe4; border-radius: 3px; padding: 0 .15em; }
.wrong { background: #fde3d6; border-radius: 3px; padding: 0 .15em; }
.wrong s { color: #6b6b6b; }
details { margin: .5rem 0; } summary { cursor: pointer; font-weight: 600; }
.run { border-top: 2px solid #888; margin-top: 2rem; }
footer { margin: 2rem 0 1rem; font-size: .8rem; color: #555; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what is under it; nothing if that is nothing."""
    content = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """(what, figure) as tiles."""
    inner = "".join(f"<li><b>{escape(figure)}</b>{escape(what)}</li>" for what, figure in figures)
    return f'<ul class="tiles">{inner}</ul>'


def grid(charts: Iterable[str], small: bool = False) -> str:
    """Figures side by side where there is room; the empty ones are left out."""
    drawn = [chart for chart in charts if chart]
    return f'<div class="{"small" if small else "charts"}">{"".join(drawn)}</div>' if drawn else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of plain text that scrolls sideways on a narrow screen; columns ``numbers`` are set to the right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in numbers else ''}>{escape(str(cell))}</{tag}>"
            for place, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{line("th", header)}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, content: str, open_: bool = False) -> str:
    """Content that is shown when its title is clicked."""
    return f"<details{' open' if open_ else ''}><summary>{escape(title)}</summary>{content}</details>"
