"""Charts as SVG: lines, linked points, heat maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from xlmtrain.report.picture import AXIS, FAINT, GRID, WIDTH, Entry, picture, shortened, text_width

# Okabe & Ito (2008): told apart also with colour-deficient eyes; the last is black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#000000")
REFERENCE_COLOR = "#767676"
HEIGHT = 230
_RIGHT, _TOP, _BOTTOM = 14, 8, 36
_MARKED = 24  # lines of so few points show them
_NUMBERED = 12
_AT_MOST = 4  # panels side by side
_PARTING = "between the languages"


@dataclass(frozen=True)
class Line:
    """``xs`` and ``ys`` of the same length; points that are not finite are left out.

    ``reference``: drawn dashed, in the colour of the line named ``beside``, grey if there is none.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    reference: bool = False
    beside: str = ""


def line_chart(title: str, lines: Sequence[Line], x_name: str, log: bool = False, floor: float | None = None) -> str:
    """A figure with its legend, which gives each line's last value; empty if there is nothing to draw.

    ``log``: the vertical axis is logarithmic. ``floor``: the vertical axis begins there.
    """
    drawn = [(line, points) for line in lines if (points := _points(line, log))]
    if not drawn:
        return ""
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    low, high = min(ys), max(ys)
    room = 0.0 if log else 0.04 * (high - low or abs(high) or 1.0)
    up = _Axis(low - room if floor is None else floor, high + room, HEIGHT - _BOTTOM, _TOP, log)
    left = 8 + max(text_width(number(tick)) for tick in up.ticks())
    across = _Axis(min(0.0, *xs), max(xs), left, WIDTH - _RIGHT, False)
    named = [line.name for line in lines if not line.reference]  # also those that are not drawn: a run keeps its colour
    colors = dict(zip(named, COLORS * (1 + len(named) // len(COLORS))))
    marks, legend = [*_grid(across, up, x_name, all(float(x).is_integer() for x in xs))], []
    for line, points in drawn:
        color = colors.get(line.beside if line.reference else line.name, REFERENCE_COLOR)
        marks += _polyline(across, up, points, color, line.reference)
        legend.append(Entry(color, line.name, number(points[-1][1]), line.reference))
    return picture(title, marks, HEIGHT, legend)


def linked_points(
    title: str, first: np.ndarray, second: np.ndarray, names: tuple[str, str], texts: Sequence[tuple[str, str]]
) -> str:
    """Points (N, 2) of two kinds, each of the first linked with its counterpart; ``texts``: of both.

    They show when pointed at; the first dozen have their number beside them, and their texts below.
    """
    both = np.concatenate([first, second])
    low, high = both.min(axis=0), both.max(axis=0)
    span = np.where(high > low, high - low, 1.0)

    def place(point: np.ndarray) -> tuple[float, float]:
        x, y = (point - low) / span
        return 14 + x * (WIDTH - 40), 16 + (1 - y) * (WIDTH - 60)

    links, points = [], []
    key: list[str] = []
    for order, (a, b, pair) in enumerate(zip(first, second, texts), 1):
        (x1, y1), (x2, y2) = place(a), place(b)
        links.append(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#bbbbbb"/>')
        for x, y, color in ((x1, y1, COLORS[0]), (x2, y2, COLORS[1])):
            tip = escape(" | ".join(pair))
            points.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"><title>{tip}</title></circle>')
        if order <= _NUMBERED:
            points.append(
                f'<text x="{x1 + 6:.1f}" y="{y1 - 5:.1f}" font-weight="600" stroke="#ffffff" stroke-width="3" '
                f'paint-order="stroke">{order}</text>'
            )
            key += _pair(order, pair, WIDTH - 30 + 34 * (order - 1))
    height = WIDTH - 26 + 34 * min(len(texts), _NUMBERED)
    return picture(title, [*links, *points, *key], height, [Entry(c, name) for c, name in zip(COLORS, names)])


def _pair(order: int, pair: tuple[str, str], y: float) -> Iterator[str]:
    """A pair's number and its two texts, one under the other."""
    yield f'<text x="20" y="{y + 12:.1f}" text-anchor="end" font-weight="600">{order}</text>'
    for line, (text, color) in enumerate(zip(pair, COLORS)):
        below = y + 12 + 14 * line
        yield f'<circle cx="30" cy="{below - 4:.1f}" r="3" fill="{color}"/>'
        yield f'<text x="38" y="{below:.1f}">{escape(shortened(text, WIDTH - 40))}<title>{escape(text)}</title></text>'


def heat_map(title: str, weights: np.ndarray, names: Sequence[str], split: int) -> str:
    """``weights`` (T, T) from 0 to their greatest: rows look at columns. ``names``: of both; ``split``: where the
    second language begins, marked by a line."""
    margin = 8 + max(map(text_width, names))
    cell = (WIDTH - margin - 2) / len(names)
    marks = list(_heat(weights, names, split, margin, margin, cell))
    for place, name in enumerate(names):
        middle = margin + (place + 0.5) * cell + 4
        marks.append(f'<text x="{margin - 5:.1f}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
        marks.append(
            f'<text transform="translate({middle:.1f} {margin - 5:.1f}) rotate(-90)" x="0" y="0">{escape(name)}</text>'
        )
    legend = [Entry(COLORS[0], "the strongest look", number(float(weights.max()))), Entry(COLORS[1], _PARTING)]
    return picture(title, marks, WIDTH, legend)


def heat_maps(
    title: str, panels: Sequence[tuple[str, np.ndarray]], columns: int, names: Sequence[str], split: int
) -> str:
    """Several of the same ``names``, small and without them, each under a title of its own; ``columns`` in a row, up to
    four."""
    columns = min(columns, _AT_MOST)
    size = (WIDTH - 10 * (columns - 1)) / columns
    marks = []
    for order, (label, weights) in enumerate(panels):
        x, y = order % columns * (size + 10), order // columns * (size + 24)
        marks.append(f'<text x="{x:.1f}" y="{y + 12:.1f}">{escape(label)}</text>')
        marks += _heat(weights, names, split, x + 1, y + 18, (size - 2) / len(names))
    legend = [Entry(COLORS[0], "the strongest look of each"), Entry(COLORS[1], _PARTING)]
    return picture(title, marks, math.ceil(len(panels) / columns) * (size + 24), legend)


def _heat(weights: np.ndarray, names: Sequence[str], split: int, left: float, top: float, cell: float) -> Iterator[str]:
    """Cells from (left, top) on."""
    greatest = float(weights.max()) or 1.0
    yield '<g shape-rendering="crispEdges">'  # no seams
    for row, column in zip(*np.nonzero(weights >= 0.02 * greatest)):
        weight = float(weights[row, column])
        tip = f"{names[row]} → {names[column]}: {weight:.2f}"
        yield (
            f'<rect x="{left + column * cell:.1f}" y="{top + row * cell:.1f}" width="{cell:.1f}" '
            f'height="{cell:.1f}" fill="{COLORS[0]}" fill-opacity="{weight / greatest:.2f}">'
            f"<title>{escape(tip)}</title></rect>"
        )
    yield "</g>"
    edge, size = split * cell, len(names) * cell
    parting = f"M{left:.1f} {top + edge:.1f}h{size:.1f}M{left + edge:.1f} {top:.1f}v{size:.1f}"
    yield f'<path d="{parting}" stroke="{COLORS[1]}"/>'
    yield f'<path d="M{left:.1f} {top:.1f}h{size:.1f}v{size:.1f}h-{size:.1f}z" stroke="{AXIS}" fill="none"/>'


def number(value: float) -> str:
    """Three significant digits, as people write them: 12.3M, 4,500, 0.05, 2e-04."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= unit:
            return f"{value / unit:.3g}{letter}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0e}" if 0 < size < 1e-3 else f"{value:.3g}"


@dataclass(frozen=True)
class _Axis:
    """Maps ``low`` to ``start`` and ``high`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        scale: Callable[[float], float] = math.log10 if self.log else float
        low, high = scale(self.low), scale(self.high)
        return self.start + (scale(value) - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers inside, about five."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5)):
                found = [s * 10.0**p for p in powers for s in steps if self.low <= s * 10.0**p <= self.high]
                if len(found) >= 3:
                    break
            return found[:: 1 + len(found) // 8] or [self.low, self.high]
        span = (self.high - self.low) or 1.0
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(s for s in (1, 2, 5, 10) if span / (s * step) <= 6)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _points(line: Line, log: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(line.xs, line.ys) if math.isfinite(y) and (y > 0 or not log)]


def _grid(across: _Axis, up: _Axis, x_name: str, whole: bool) -> Iterator[str]:
    left, right, bottom = across.start, across.end, HEIGHT - _BOTTOM
    for tick in up.ticks():
        y = up(tick)
        yield f'<path d="M{left:.1f} {y:.1f}H{right:.1f}" stroke="{GRID}"/>'
        yield f'<text x="{left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
    for tick in across.ticks():
        if whole and not float(tick).is_integer():
            continue
        x, label = across(tick), number(tick)
        middle = min(x, WIDTH - text_width(label) / 2)
        yield f'<path d="M{x:.1f} {bottom}v4" stroke="{AXIS}"/>'
        yield f'<text x="{middle:.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>'
    yield f'<path d="M{left:.1f} {_TOP}V{bottom}H{right:.1f}" stroke="{AXIS}" fill="none"/>'
    yield f'<text x="{right:.1f}" y="{HEIGHT - 4}" text-anchor="end" fill="{FAINT}">{escape(x_name)}</text>'


def _polyline(
    across: _Axis, up: _Axis, points: Sequence[tuple[float, float]], color: str, dashed: bool
) -> Iterator[str]:
    places = [(across(x), up(y)) for x, y in points]
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    yield f'<polyline points="{way}" fill="none" stroke="{color}" stroke-width="{1.3 if dashed else 1.8}"{dash}/>'
    if len(places) <= _MARKED and not dashed:
        for (x, y), (real_x, real_y) in zip(places, points):
            tip = f"{number(real_x)}: {number(real_y)}"
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"><title>{tip}</title></circle>'
