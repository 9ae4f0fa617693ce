"""The frame of a picture: SVG that says by itself what it shows, in a page or alone.

Title, legend and colours (for a white ground) are in it. Only a browser could tell how wide a text is: widths are
estimated, a little too large for most fonts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 400
FONT = 12
_HEADING = WIDTH / 1.08  # bold letters are broader
INK, FAINT, GRID, AXIS = "#333333", "#595959", "#e3e3e3", "#777777"
_FAMILIES = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
_LINE, _SAMPLE, _APART, _PAD = 17, 24, 14, 6
_NARROW, _BROAD = frozenset("il.,:;'|!()[]/tfrjI "), frozenset("mwMWQOGD@%—→<>+=")


@dataclass(frozen=True)
class Entry:
    """What is drawn in ``color``: its ``name``, and a ``value`` that stands out."""

    color: str
    name: str
    value: str = ""
    dashed: bool = False


def picture(title: str, marks: Iterable[str], height: float, legend: Sequence[Entry] = ()) -> str:
    """A figure: the title, under it ``marks``, which are ``WIDTH`` wide and ``height`` high, under them the legend."""
    heading = list(_wrapped(title))
    top = len(heading) * _LINE + 3
    lines = [
        f'<text x="0" y="{(number + 1) * _LINE - 4}" font-weight="600">{escape(line)}</text>'
        for number, line in enumerate(heading)
    ]
    rows = list(_rows(legend))
    bottom = top + height + 4
    entries = [
        _entry(entry, x, bottom + (number + 1) * _LINE - 4) for number, row in enumerate(rows) for x, entry in row
    ]
    total = math.ceil(bottom + len(rows) * _LINE + 2)
    box = f"{-_PAD} {-_PAD} {WIDTH + 2 * _PAD} {total + 2 * _PAD}"
    return (
        f'<figure><svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" '
        f'aria-label="{escape(title)}" font-family="{_FAMILIES}" font-size="{FONT}" fill="{INK}">{"".join(lines)}'
        f'<g transform="translate(0 {top})">{"".join(marks)}</g>{"".join(entries)}</svg></figure>'
    )


def text_width(text: str) -> float:
    """About how wide it is, in units of the picture."""
    ems = sum(0.4 if letter in _NARROW else 0.95 if letter in _BROAD else 0.65 for letter in text)
    return ems * FONT


def shortened(text: str, width: float) -> str:
    """As much of a text as there is room for."""
    if text_width(text) <= width:
        return text
    while text and text_width(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _wrapped(text: str) -> Iterator[str]:
    """In lines that fit, bold; a unit in brackets stays with its word."""
    line = ""
    for word in text.replace(" (", "\N{NO-BREAK SPACE}(").split(" "):
        longer = f"{line} {word}".strip()
        if line and text_width(longer) > _HEADING:
            yield shortened(line, _HEADING)
            longer = word
        line = longer
    yield shortened(line, _HEADING)


def _rows(legend: Sequence[Entry]) -> Iterator[list[tuple[float, Entry]]]:
    """The entries with where they begin, in rows of as many as fit."""
    row: list[tuple[float, Entry]] = []
    place = 0.0
    for entry in legend:
        width = _SAMPLE + text_width(f"{entry.name} {entry.value}")
        if row and place + width > WIDTH:
            yield row
            row, place = [], 0.0
        row.append((place, entry))
        place += width + _APART
    if row:
        yield row


def _entry(entry: Entry, x: float, y: float) -> str:
    value = f'<tspan dx="5" font-weight="600">{escape(entry.value)}</tspan>' if entry.value else ""
    name = shortened(entry.name, WIDTH - _SAMPLE - text_width(f" {entry.value}"))
    full = f"<title>{escape(entry.name)}</title>" if name != entry.name else ""
    dash = ' stroke-dasharray="5 4"' if entry.dashed else ""
    return (
        f'<path d="M{x:.1f} {y - 4:.1f}h{_SAMPLE - 6}" stroke="{entry.color}" stroke-width="3"{dash}/>'
        f'<text x="{x + _SAMPLE:.1f}" y="{y:.1f}">{full}{escape(name)}{value}</text>'
    )
