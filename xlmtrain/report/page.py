"""The page around the report: one file, no network, light or dark as the reader's screen is, one column on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #595959; --ground: #fff; --raised: #f2f5f8; --rule: #dcdcdc;
  --warn: #fdf6e7; --grave: #fdeee6; --well: #e9f6f1; --right: #d5efe4; --wrong: #fde3d6; --shade: #0004; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e2e2; --faint: #a3a3a3; --ground: #16181b; --raised: #22262b; --rule: #3a3f45;
    --warn: #352c18; --grave: #3d2418; --well: #17332a; --right: #1c4a3a; --wrong: #54301f; --shade: #fff2; }
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
svg { display: block; width: 100%; height: auto; max-width: 36rem; }
/* What can be scrolled sideways has a shadow on that side. */
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
.grave { border-color: #D55E00; background: var(--grave); }
.well { border-color: #009E73; background: var(--well); }
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


def is_report(text: str) -> bool:
    """Return whether a file's ``text`` is a page that :func:`page` made."""
    return _GENERATOR in text[:1000]


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"{_GENERATOR}"
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


def grid(charts: Iterable[str]) -> str:
    """Figures side by side where there is room; the empty ones are left out."""
    drawn = [chart for chart in charts if chart]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


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
