"""Charts as inline SVG: lines, linked points, a heat map. They scale with the page and need nothing but a browser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# Okabe & Ito (2008): told apart also with colour-deficient eyes; the last is black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#000000")
REFERENCE_COLOR = "#767676"
WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 10, 34
_MARKED = 24  # lines of so few points show them


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
    across = _Axis(min(0.0, *xs), max(xs), _LEFT, WIDTH - _RIGHT, False)
    low, high = min(ys), max(ys)
    room = 0.0 if log else 0.04 * (high - low or abs(high) or 1.0)
    up = _Axis(low - room if floor is None else floor, high + room, HEIGHT - _BOTTOM, _TOP, log)
    named = [line.name for line in lines if not line.reference]  # also those that are not drawn: a run keeps its colour
    colors = dict(zip(named, COLORS * (1 + len(named) // len(COLORS))))
    marks, legend = [*_grid(across, up, x_name, all(float(x).is_integer() for x in xs))], []
    for line, points in drawn:
        color = colors.get(line.beside if line.reference else line.name, REFERENCE_COLOR)
        marks += _polyline(across, up, points, color, line.reference)
        style = "border-top-style:dashed" if line.reference else ""
        legend.append(
            f'<span><i style="border-color:{color};{style}"></i>{escape(line.name)} '
            f"<b>{number(points[-1][1])}</b></span>"
        )
    return _figure(title, marks, f'<div class="legend">{"".join(legend)}</div>', WIDTH, HEIGHT)


def linked_points(
    title: str, first: np.ndarray, second: np.ndarray, names: tuple[str, str], texts: Sequence[str]
) -> str:
    """Points (N, 2) of two kinds, each of the first linked with its counterpart; ``texts`` show when pointed at.

    The first dozen have their number beside them.
    """
    both = np.concatenate([first, second])
    low, high = both.min(axis=0), both.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    size = WIDTH - 40

    def place(point: np.ndarray) -> tuple[float, float]:
        x, y = (point - low) / span
        return 20 + x * size, 20 + (1 - y) * size

    marks = []
    for number_, (a, b, text) in enumerate(zip(first, second, texts), 1):
        (x1, y1), (x2, y2) = place(a), place(b)
        marks.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#bbb"/>')
        for x, y, color in ((x1, y1, COLORS[0]), (x2, y2, COLORS[1])):
            marks.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"><title>{escape(text)}</title></circle>'
            )
        if number_ <= 12:
            marks.append(f'<text x="{x1 + 6:.1f}" y="{y1 - 5:.1f}" class="mark">{number_}</text>')
    legend = "".join(
        f'<span><i style="border-color:{color}"></i>{escape(name)}</span>' for name, color in zip(names, COLORS)
    )
    return _figure(title, marks, f'<div class="legend">{legend}</div>', WIDTH, WIDTH)


def heat_map(title: str, weights: np.ndarray, names: Sequence[str], split: int, small: bool = False) -> str:
    """``weights`` (T, T) from 0 to their greatest: rows look at columns. ``names``: of both; ``split``: where the
    second language begins, marked by a line; ``small``: without names."""
    count = len(names)
    left = 4 if small else 8 + 7.2 * max(map(len, names))
    cell = (WIDTH - left - 4) / count
    greatest = float(weights.max()) or 1.0
    marks = []
    for row in range(count):
        for column in range(count):
            strength = float(weights[row, column]) / greatest
            if strength >= 0.02:
                tip = f"{names[row]} → {names[column]}: {weights[row, column]:.2f}"
                marks.append(
                    f'<rect x="{left + column * cell:.1f}" y="{left + row * cell:.1f}" width="{cell:.1f}" '
                    f'height="{cell:.1f}" fill="{COLORS[0]}" fill-opacity="{strength:.2f}">'
                    f"<title>{escape(tip)}</title></rect>"
                )
    edge, end = left + split * cell, left + count * cell
    marks.append(f'<path d="M{left} {edge:.1f}H{end:.1f}M{edge:.1f} {left}V{end:.1f}" stroke="{COLORS[1]}"/>')
    marks.append(f'<path d="M{left} {left}H{end:.1f}V{end:.1f}H{left}Z" stroke="#999" fill="none"/>')
    if not small:
        for place, name in enumerate(names):
            middle = left + (place + 0.5) * cell
            marks.append(f'<text x="{left - 4}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>')
            marks.append(f'<text transform="translate({middle + 4:.1f} {left - 4}) rotate(-90)">{escape(name)}</text>')
    return _figure(title, marks, "", WIDTH, math.ceil(end + 4))


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
    for tick in up.ticks():
        y = up(tick)
        yield f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" class="grid"/>'
        yield f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
    for tick in across.ticks():
        if whole and not float(tick).is_integer():
            continue
        x = across(tick)
        yield f'<path d="M{x:.1f} {HEIGHT - _BOTTOM}v4" class="axis"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{number(tick)}</text>'
    yield f'<path d="M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}" class="axis"/>'
    yield f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 3}" text-anchor="end" class="name">{escape(x_name)}</text>'


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


def _figure(title: str, marks: Sequence[str], legend: str, width: int, height: int) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(marks)}</svg>{legend}</figure>'
    )
