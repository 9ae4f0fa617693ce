"""Charts: where the points are, what the axes say, what cannot be drawn."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tests.support.pages import legend
from xlmtrain.report.charts import HEIGHT, WIDTH, Line, heat_map, heat_maps, line_chart, linked_points, number


def polylines(chart: str) -> list[list[tuple[float, float]]]:
    """The points of each line, in the figure's units."""
    found = re.findall(r'<polyline points="([^"]*)"', chart)
    return [[tuple(map(float, point.split(","))) for point in way.split()] for way in found]  # type: ignore[misc]


def test_a_line_goes_up_where_the_figure_does() -> None:
    (line,) = polylines(line_chart("t", [Line("a", [0, 1, 2], [1.0, 2.0, 3.0])], "x"))
    xs, ys = zip(*line)
    assert xs[0] < xs[1] < xs[2]
    assert ys[0] > ys[1] > ys[2]  # down is up on the screen
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.2)
    assert all(0 <= x <= WIDTH for x in xs)
    assert all(0 <= y <= HEIGHT for y in ys)


def test_powers_are_evenly_apart_on_a_logarithmic_axis() -> None:
    chart = line_chart("t", [Line("a", [0, 1, 2], [1.0, 10.0, 100.0])], "x", log=True)
    (line,) = polylines(chart)
    assert line[0][1] - line[1][1] == pytest.approx(line[1][1] - line[2][1], abs=0.2)
    assert [tick in chart for tick in (">1<", ">10<", ">100<")] == [True] * 3


def test_lines_share_an_axis_and_the_legend_has_the_last_values() -> None:
    chart = line_chart("Loss <x>", [Line("a&b", [0, 4], [1.0, 2.5]), Line("past", [0, 2], [2.5, 1.0], True)], "x")
    first, second = polylines(chart)
    assert first[0][1] == second[1][1]
    assert second[1][0] == pytest.approx((first[0][0] + first[1][0]) / 2, abs=0.1)
    assert legend(chart) == [("a&b", "2.5"), ("past", "1")]
    assert "Loss &lt;x&gt;" in chart
    assert chart.count("stroke-dasharray") == 2  # the line and its entry


def test_a_reference_has_the_colour_of_its_line() -> None:
    lines = [Line("a", [0, 1], [1.0, 2.0]), Line("b", [0, 1], [1.0, 2.0])]
    lines += [Line("b, past", [0, 1], [2.0, 3.0], True, "b"), Line("level", [0, 1], [2.0, 2.0], True)]
    chart = line_chart("t", lines, "x")
    colors = re.findall(r'<polyline [^>]*stroke="(#\w+)"', chart)
    assert len(set(colors)) == 3
    assert colors[2] == colors[1]
    assert colors[3] not in colors[:3]


def test_what_is_not_finite_is_left_out() -> None:
    (line,) = polylines(line_chart("t", [Line("a", [0, 1, 2], [1.0, math.nan, 3.0]), Line("b", [0], [math.inf])], "x"))
    assert len(line) == 2
    assert line_chart("t", [Line("a", [], []), Line("b", [1], [math.nan])], "x") == ""
    assert line_chart("t", [Line("a", [1], [0.0])], "x", log=True) == ""


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0, 0.0]])
def test_a_level_line_is_drawn(values: list[float]) -> None:
    (line,) = polylines(line_chart("t", [Line("a", range(len(values)), values)], "x"))
    assert len({y for _, y in line}) == 1


def test_translations_are_linked() -> None:
    a, b = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    chart = linked_points("t", a, b, ("de", "en"), [("eins", "one"), ("zwei", "<two>")])
    links = [tuple(map(float, found)) for found in re.findall(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', chart)]
    assert len(links) == 2
    (x1, y1, x2, y2), (x3, y3, x4, y4) = links
    assert y3 == y4 < y1 == y2
    assert x1 < x2
    assert x3 > x4
    assert chart.count("<circle") == 8  # the points, and the texts' below them
    assert [name for name, _ in legend(chart)] == ["de", "en"]
    assert "zwei | &lt;two&gt;" in chart


def test_heat_of_each_cell() -> None:
    chart = heat_map("t", np.array([[1.0, 0.0], [0.25, 0.5]]), ["a", "b"], 1)
    cells = re.findall(r'<rect x="(.*?)" y="(.*?)" .*?fill-opacity="(.*?)"><title>(.*?)</title>', chart)
    assert [(opacity, tip) for _, _, opacity, tip in cells] == [
        ("1.00", "a → a: 1.00"),
        ("0.25", "b → a: 0.25"),
        ("0.50", "b → b: 0.50"),
    ]
    assert cells[0][0] == cells[1][0]
    assert float(cells[1][1]) > float(cells[0][1])


def test_small_maps_are_one_picture() -> None:
    panels = [(f"head {number}", np.eye(2)) for number in range(3)]
    chart = heat_maps("t", panels, 2, ["a", "b"], 1)
    assert chart.count("<svg") == 1
    places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)">head', chart)
    assert places[0][1] == places[1][1] < places[2][1]
    assert places[0][0] == places[2][0] < places[1][0]


def test_long_texts_are_given_lines_and_room() -> None:
    title = "A title that is far too long for one line of a picture that is four hundred units wide (%)"
    lines = [Line(name, [0, 1], [1.0, 2.0]) for name in ("a run with a long name", "another one", "x" * 100)]
    chart = line_chart(title, lines, "x")
    heading = re.findall(r'font-weight="600">([^<]*)</text>', chart)
    assert " ".join(heading).replace("\N{NO-BREAK SPACE}", " ") == title
    assert len(heading) == 2
    entries = legend(chart)
    assert [name for name, _ in entries[:2]] == ["a run with a long name", "another one"]
    places = [float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)">(?:<title>x*</title>)?[ax]', chart)]
    assert places[0] == places[1] < places[2]
    assert "x…" in chart
    assert f"<title>{'x' * 100}</title>" in chart


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12_340_000, "12.3M"),
        (4500, "4,500"),
        (0.05, "0.05"),
        (0, "0"),
        (2e-4, "2e-04"),
        (1.5e9, "1.5G"),
        (12.34, "12.3"),
    ],
)
def test_numbers_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text
