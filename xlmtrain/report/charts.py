"""Charts, drawn by matplotlib: as SVG for the page, as PNG for files.

Axis letters: N points, T tokens.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.errors import ConfigError
from xlmtrain.runtime.output_paths import replace_file

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
except ImportError:
    matplotlib = None  # type: ignore[assignment]

_STYLE = Path(__file__).with_name("charts.mplstyle")
INSTALL = "matplotlib is not installed; install it with: pip install matplotlib"
# Okabe & Ito (2008), distinguishable with colour-deficient vision; the last is black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#000000")
REFERENCE_COLOR = "#767676"
NUMBERED = 12  # pairs of a scatter plot with a number beside them
_MARKED = 24  # lines of so few points show them
_LONGEST_NAME = 44  # characters of a name in a legend
_WIDTH = 4.0  # inches
_CHARACTERS = 58  # of the usual size in a line of a figure
_SOFTWARE = "xlmtrain"
_NOTHING = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Chart:
    """A figure that is drawn when needed. ``description``: the text alternative, which holds the essential values."""

    title: str
    description: str
    draw: Callable[[], Figure]

    def svg(self) -> str:
        """Return an ``<svg>`` element that fills the width it is given and takes its font from the page."""
        text = self._save("svg", facecolor="none", metadata=_NOTHING).decode()
        text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text[text.index("<svg") :], flags=re.DOTALL)
        text = re.sub(r' id="(?:\w+_\d+|matplotlib\.\w+|image\w+)"', "", text)  # would occur in every picture
        text = re.sub(r' transform="rotate\(-0 [^"]*"|font-family: [^;"]*; ?', "", text)
        text = re.sub(r' d="[^"]*"', lambda path: _rounded(path[0]), text).replace("xlink:href", "href")
        text = re.sub(r">\s+<", "><", text[:-1]).replace("<g/>", "")
        box = re.search(r'viewBox="[^"]*"', text)
        assert box
        head = f'<svg {box[0]} role="img" aria-label="{escape(self.title)}. {escape(self.description)}">'
        return head + text[text.index(">") + 1 :]

    def png(self) -> bytes:
        """Return the content of a PNG file, on white."""
        return self._save("png", facecolor="white", metadata={"Software": _SOFTWARE})

    def _save(self, kind: str, **options: Any) -> bytes:
        buffer = BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": self.title}, _STYLE):
            self.draw().savefig(buffer, format=kind, **options)
        return buffer.getvalue()


def _rounded(path: str) -> str:
    short = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), path)
    return short.replace("\n", "")


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return matplotlib is not None


def write_pngs(charts: Sequence[Chart], directory: Path) -> list[Path]:
    """Write each chart to ``<number>-<title>.png`` and return the files.

    Raises ConfigError if the directory cannot be written, or has a file of that name which is no picture of ours.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"images={directory}: cannot be written ({error.strerror})") from None
    files = []
    for number, chart in enumerate(charts, 1):
        name = re.sub(r"\W+", "-", chart.title.lower()).strip("-")[:60].rstrip("-")
        files.append(directory / f"{number:02d}-{name}.png")
        replace_file("images", files[-1], chart.png(), _is_own_png)
    return files


def _is_own_png(content: str) -> bool:
    return content[1:4] == "PNG" and f"Software\0{_SOFTWARE}" in content[:1000]


@dataclass(frozen=True)
class Line:
    """A curve: ``xs`` and ``ys`` of the same length; points that are not finite are left out.

    ``reference``: drawn dashed, in the colour of the line named ``beside`` and in the same entry of the legend; grey if
    there is none. ``valued``: its last value is known well enough to be in the legend.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    reference: bool = False
    beside: str = ""
    valued: bool = True

    def points(self, log: bool) -> list[tuple[float, float]]:
        """Return the points that can be drawn."""
        return [(x, y) for x, y in zip(self.xs, self.ys) if math.isfinite(y) and (y > 0 or not log)]


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_name: str,
    log: bool = False,
    floor: float | None = None,
    phases: Sequence[tuple[float, str]] = (),
) -> Chart | None:
    """Return a chart whose legend gives each line's last value; None if there is nothing to draw.

    ``log``: the vertical axis is logarithmic. ``floor``: the vertical axis begins there. ``phases``: (first x, name);
    every other one is shaded.
    """
    drawn = [(line, points) for line in lines if (points := line.points(log))]
    if not drawn:
        return None
    named = [line.name for line in lines if not line.reference]  # also those without points: a run keeps its colour
    colors = dict(zip(named, COLORS * (1 + len(named) // len(COLORS))))
    last = {line.name: number(points[-1][1]) for line, points in drawn}
    past = {line.beside: last[line.name] for line, _ in drawn if line.beside in last and line.valued}
    values = {name: value + (f" (preset {past[name]})" if name in past else "") for name, value in last.items()}
    listed = [line.name for line, _ in drawn if line.beside not in last]

    def draw() -> Figure:
        labels = {name: f"{_shortened(name)} {values[name]}" for name in listed}
        columns = max(1, min(3, _CHARACTERS // (max(map(len, labels.values())) + 6)))
        figure = _figure(title, 2.25 + 0.165 * math.ceil(len(listed) / columns))
        ax = figure.add_subplot(xlabel=x_name)
        handles = []
        for line, points in drawn:
            style: dict[str, Any] = {"linewidth": 1.5}
            if line.reference:
                style = {"linestyle": (0, (4, 3)), "linewidth": 1.0}
            elif len(points) <= _MARKED:
                style |= {"marker": "o", "markersize": 3}
            color = colors.get(line.beside if line.reference else line.name, REFERENCE_COLOR)
            curves = ax.plot(*zip(*points), color=color, clip_on=False, label=labels.get(line.name), **style)
            handles += curves if line.name in labels else []
        _scale_axes(ax, [point for _, points in drawn for point in points], log, floor)
        _shade_phases(ax, phases)
        figure.legend(handles=handles, loc="outside lower left", ncols=columns)
        return figure

    return Chart(title, "Last values: " + ", ".join(f"{name} {values[name]}" for name in listed), draw)


def _shade_phases(ax: Axes, phases: Sequence[tuple[float, str]]) -> None:
    """Write the name of each phase above its begin, and shade every other one."""
    ends = [begin for begin, _ in phases[1:]] + [ax.get_xlim()[1]]
    for number, ((begin, name), end) in enumerate(zip(phases, ends)):
        if number % 2:
            ax.axvspan(begin, end, color=REFERENCE_COLOR, alpha=0.12, linewidth=0)
        place = ax.get_xaxis_transform()
        ax.text(begin, 1.01, _shortened(name), transform=place, va="bottom", fontsize=6.5, color=REFERENCE_COLOR)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _scale_axes(ax: Axes, points: Sequence[tuple[float, float]], log: bool, floor: float | None) -> None:
    """Set limits, ticks and grid for the ``points`` (x, y) of all lines."""
    xs, ys = zip(*points)
    low, high = min(ys), max(ys)
    ax.set_xlim(min(0.0, *xs), max(xs) or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=all(float(x).is_integer() for x in xs)))
    ax.xaxis.label.set(horizontalalignment="right", x=1.0)
    if log:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.1, high * 1.1)
        ax.yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 1000 else (1, 3)))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.04 * (high - low or abs(high) or 1.0)
        ax.set_ylim(low - margin if floor is None else floor, high + margin)
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.grid(axis="y", clip_on=False)
    ax.tick_params(axis="y", length=0)


def _figure(title: str, height: float) -> Figure:
    """Return a figure with a left-aligned title, ``height`` inches high besides that."""
    lines = textwrap.wrap(title, _CHARACTERS - 8)
    figure = Figure(figsize=(_WIDTH, height + 0.15 * len(lines)), layout="constrained")
    figure.suptitle("\n".join(lines), x=0.01, ha="left")
    return figure


def paired_scatter(title: str, first: np.ndarray, second: np.ndarray, names: tuple[str, str]) -> Chart:
    """Return a chart of the points (N, 2) of two languages, each linked with its counterpart.

    The first pairs have their number beside them.
    """
    within = np.linalg.norm(first - second, axis=1).mean()
    both = np.concatenate([first, second])
    spread = np.linalg.norm(both - both.mean(axis=0), axis=1).mean() or 1.0
    pairs = f"{len(first)} pairs, {names[0]} and {names[1]}"
    text = f"{pairs}: the mean distance within a pair is {within / spread:.2f} times that of a point from the centre"

    def draw() -> Figure:
        figure = _figure(title, 4.1)
        ax = figure.add_subplot(xticks=[], yticks=[])
        ax.plot(*np.stack([first, second], axis=1).transpose(2, 1, 0), color="#bbbbbb", linewidth=0.8, clip_on=False)
        for points, name, color in zip((first, second), names, COLORS):
            ax.plot(*points.T, "o", color=color, markersize=5, label=name, clip_on=False)
        for place, point in enumerate(first[:NUMBERED], 1):
            ax.annotate(str(place), point, xytext=(4, 3), textcoords="offset points", fontweight="bold")
        ax.margins(0.06)
        ax.spines[:].set_visible(False)
        figure.legend(loc="outside lower left", ncols=2)
        return figure

    return Chart(title, text, draw)


def heat_map(
    title: str, weights: np.ndarray, rows: Sequence[str], columns: Sequence[str], split: int | None = None
) -> Chart:
    """Return a chart of ``weights`` (T, S): rows attend to columns.

    ``rows``, ``columns``: their names. ``split``: index of both at which the second language begins, marked by a line.
    """
    row, column = divmod(int(weights.argmax()), len(columns))
    text = f"Largest weight: {rows[row]} to {columns[column]}, {number(float(weights.max()))}"

    def draw() -> Figure:
        figure = _figure(title, 4.3)
        ax = figure.add_subplot(xlabel=text)
        _draw_weights(ax, weights, split)
        ax.set_xticks(range(len(columns)), columns, rotation=90)
        ax.set_yticks(range(len(rows)), rows)
        ax.tick_params(length=0, labelsize=7.5, labeltop=True, labelbottom=False)
        return figure

    return Chart(title, text, draw)


def heat_maps(title: str, panels: Sequence[tuple[str, np.ndarray]], columns: int, split: int | None = None) -> Chart:
    """Return a chart of several small heat maps, each under its own title; at most four in a row."""
    columns = min(columns, 4)

    def draw() -> Figure:
        rows = math.ceil(len(panels) / columns)
        figure = _figure(title, 0.2 + rows * (_WIDTH / columns + 0.15))
        for place, (label, weights) in enumerate(panels, 1):
            ax = figure.add_subplot(rows, columns, place, xticks=[], yticks=[])
            ax.set_title(label, fontsize=8, pad=3)
            _draw_weights(ax, weights, split)
        return figure

    return Chart(title, ", ".join(label for label, _ in panels), draw)


def _draw_weights(ax: Axes, weights: np.ndarray, split: int | None) -> None:
    """Draw from white at 0 to the first colour at the maximum."""
    shades = LinearSegmentedColormap.from_list("weights", ("#ffffff", COLORS[0]))
    ax.imshow(weights, cmap=shades, vmin=0.0, vmax=float(weights.max()) or 1.0, interpolation="none")
    if split is not None:
        ax.axhline(split - 0.5, color=COLORS[1], linewidth=0.9)
        ax.axvline(split - 0.5, color=COLORS[1], linewidth=0.9)
    ax.spines[:].set_visible(True)


def number(value: float) -> str:
    """Return three significant digits in a short form: 12.3M, 4,500, 0.05, 2e-04."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= unit:
            return f"{value / unit:.3g}{letter}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0e}" if 0 < size < 1e-3 else f"{value:.3g}"
