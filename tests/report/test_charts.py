"""Charts: what is drawn and said, the SVG in the page, the PNG files, and a machine without matplotlib."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.support.pages import legend
from xlmtrain.errors import ConfigError
from xlmtrain.report import charts
from xlmtrain.report.charts import Chart, Line, heat_map, heat_maps, line_chart, number, paired_scatter, write_pngs
from xlmtrain.report.html import Gallery, charts_in, page
from xlmtrain.report.model_views import view
from xlmtrain.report.report import report_blocks, report_page
from xlmtrain.report.run_data import RunData


def drawn(chart: Chart | None) -> list[list[tuple[float, float]]]:
    """Return the points of each line."""
    assert chart
    return [list(zip(line.get_xdata(), line.get_ydata())) for line in chart.draw().axes[0].lines]


def simple(title: str = "title", name: str = "name", x_name: str = "x") -> Chart:
    chart = line_chart(title, [Line(name, [0, 1], [1.0, 2.0])], x_name)
    assert chart
    return chart


def test_points_legend_and_description() -> None:
    chart = line_chart("Loss <x>", [Line("a&b", [0, 4], [1.0, 2.5]), Line("past", [0, 2], [2.5, 1.0], True)], "x")
    assert drawn(chart) == [[(0, 1.0), (4, 2.5)], [(0, 2.5), (2, 1.0)]]
    assert legend(chart) == ["a&b 2.5", "past 1"]
    assert chart
    assert chart.description == "Last values: a&b 2.5, past 1"
    assert 'role="img" aria-label="Loss &lt;x&gt;. Last values: a&amp;b 2.5, past 1"' in chart.svg()


@pytest.mark.parametrize(("log", "scale"), [(True, "log"), (False, "linear")])
def test_scales(log: bool, scale: str) -> None:
    chart = line_chart("t", [Line("a", [0, 1, 2], [1.0, 10.0, 100.0])], "x", log=log)
    assert chart
    assert chart.draw().axes[0].get_yscale() == scale
    ticks = [tick in chart.svg() for tick in (">1<", ">10<", ">100<")]
    assert ticks == [True] * 3 if log else ticks[2]


def test_a_reference_has_the_colour_and_the_entry_of_its_line() -> None:
    lines = [Line("a", [0, 1], [1.0, 2.0]), Line("b", [0, 1], [1.0, 2.0])]
    lines += [Line("b, past", [0, 1], [2.0, 3.0], True, "b"), Line("level", [0, 1], [2.0, 2.0], True)]
    chart = line_chart("t", lines, "x")
    assert chart
    a, b, past, level = chart.draw().axes[0].lines
    assert past.get_color() == b.get_color() != a.get_color()
    assert level.get_color() not in (a.get_color(), b.get_color())
    assert [line.is_dashed() for line in (a, b, past, level)] == [False, False, True, True]
    assert legend(chart) == ["a 2", "b 2 (preset 3)", "level 2"]


def test_what_is_not_finite_is_left_out() -> None:
    chart = line_chart("t", [Line("a", [0, 1, 2], [1.0, math.nan, 3.0]), Line("b", [0], [math.inf])], "x")
    assert drawn(chart) == [[(0, 1.0), (2, 3.0)]]
    assert line_chart("t", [Line("a", [], []), Line("b", [1], [math.nan])], "x") is None
    assert line_chart("t", [Line("a", [1], [0.0])], "x", log=True) is None


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0, 0.0]])
@pytest.mark.parametrize("log", [False, True])
def test_a_level_line_is_drawn(values: list[float], log: bool) -> None:
    chart = line_chart("t", [Line("a", range(len(values)), values)], "x", log)
    if log and not all(values):
        assert chart is None
    else:
        assert chart
        assert "nan" not in chart.svg()


def test_translations_are_linked() -> None:
    a, b = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    chart = paired_scatter("t", a, b, ("de", "en"))
    *links, first, second = drawn(chart)
    assert links == [[(0, 0), (1, 0)], [(1, 1), (0, 1)]]
    assert (first, second) == ([(0, 0), (1, 1)], [(1, 0), (0, 1)])
    assert legend(chart) == ["de", "en"]
    assert [text.get_text() for text in chart.draw().axes[0].texts] == ["1", "2"]
    assert chart.description.startswith("2 pairs, de and en: the mean distance within a pair is 1.41 times")


def test_heat_of_each_cell() -> None:
    weights = np.array([[0.5, 0.0], [0.25, 1.0]])
    chart = heat_map("t", weights, ["a", "$b$_"], ["a", "$b$_"], 1)
    ax = chart.draw().axes[0]
    assert len(ax.lines) == 2  # between the languages
    assert (ax.images[0].get_array() == weights).all()
    assert ax.images[0].get_clim() == (0.0, 1.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "$b$_"]
    assert chart.description == "Largest weight: $b$_ to $b$_, 1"
    assert ">$b$_<" in chart.svg()  # not read as a formula
    wide = heat_map("t", np.array([[0.5, 0.0, 0.75]]), ["x"], ["a", "b", "c"])
    assert wide.description == "Largest weight: x to c, 0.75"
    ax = wide.draw().axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert not ax.lines


def test_small_maps_are_one_picture() -> None:
    panels = [(f"head {number}", np.eye(2) * number) for number in range(3)]
    chart = heat_maps("t", panels, 2, 1)
    axes = chart.draw().axes
    assert [ax.get_title() for ax in axes] == ["head 0", "head 1", "head 2"]
    assert [ax.images[0].get_clim()[1] for ax in axes] == [1.0, 1.0, 2.0]
    assert chart.svg().count("<svg") == 1


def test_long_texts_are_given_lines_and_space() -> None:
    title = "A title that is far too long for one line of a picture that is four inches wide, as a phone is (%)"
    chart = line_chart(title, [Line("_x" * 50, [0, 1], [1.0, 2.0]), Line("b", [0, 1], [1.0, 2.0])], "x")
    assert chart
    assert chart.title == title
    assert len(re.findall(r"font-weight: bold|font: bold|font-weight: 700", chart.svg())) > 1
    assert legend(chart)[0] == ("_x" * 50)[:43] + "… 2"


def test_the_same_svg_every_time() -> None:
    assert simple().svg() == simple().svg()


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


def png_width(path: Path) -> int:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return int(struct.unpack(">I", content[16:20])[0])


def test_each_picture_of_the_page_is_a_file(run: Path, tmp_path: Path) -> None:
    data = RunData(run)
    runs = [(data, view(data, "de", 5))]
    files = write_pngs(list(charts_in(report_blocks(runs))), tmp_path / "new" / "pictures")
    assert len(files) == report_page(runs).count("<svg") > 8
    assert sorted((tmp_path / "new" / "pictures").iterdir()) == files
    assert files[0].name == "01-training-loss-nats-per-token.png"
    assert {png_width(file) for file in files} == {1200}


def test_title_legend_and_ticks_are_drawn(tmp_path: Path) -> None:
    """A picture without its text would be the same whatever the text."""
    made = [simple(), simple(title="other"), simple(x_name="tokens"), simple(name="another")]
    assert len({chart.png() for chart in made}) == len(made)


def test_pictures_replace_their_own_kind_only(tmp_path: Path) -> None:
    (path,) = write_pngs([simple(name="old")], tmp_path)
    old = path.read_bytes()
    assert write_pngs([simple(name="new")], tmp_path) == [path]
    assert path.read_bytes() != old
    for foreign in (old.replace(b"xlmtrain", b"XLMtrain"), b"Software\0xlmtrain", b""):
        path.write_bytes(foreign)
        with pytest.raises(ConfigError, match=r"images=.*01-title.png: exists already and is something else"):
            write_pngs([simple()], tmp_path)
        assert path.read_bytes() == foreign
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"images=.*file: cannot be written"):
        write_pngs([simple()], tmp_path / "file")


def test_without_matplotlib_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "matplotlib", None)
    text = page("t", [Gallery([simple("A & B")])])
    assert "matplotlib is not installed; install it with: pip install matplotlib" in text
    assert "<li>A &amp; B. Last values: name 2</li>" in text
    assert "<svg" not in text
