"""Pictures as files: those of the page, with their text, or an error that says what is missing."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from xlmtrain.errors import ConfigError
from xlmtrain.report import images
from xlmtrain.report.charts import Line, line_chart
from xlmtrain.report.images import write_images
from xlmtrain.report.record import RunRecord
from xlmtrain.report.report import report
from xlmtrain.report.views import view


def size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def test_each_picture_of_the_page_is_a_file(run: Path, tmp_path: Path) -> None:
    record = RunRecord(run)
    page = report([(record, view(record, "de", 5))])
    files = write_images(page, tmp_path / "new" / "pictures")
    assert len(files) == page.count("<svg") > 8
    assert sorted((tmp_path / "new" / "pictures").iterdir()) == files
    assert files[0].name == "01-training-loss-nats-a-token.png"
    assert all(size(file)[0] == 1236 for file in files)


def test_title_legend_and_ticks_are_drawn(tmp_path: Path) -> None:
    """A word more or less changes the picture: it was not left out for want of a font."""
    line = [Line("name", [0, 1], [1.0, 2.0])]
    charts = [line_chart("title", line, "x"), line_chart("other", line, "x"), line_chart("title", line, "tokens")]
    charts.append(line_chart("title", [Line("another", [0, 1], [1.0, 2.0])], "x"))
    drawn = [write_images(chart, tmp_path)[0].read_bytes() for chart in charts]
    assert len(set(drawn)) == len(charts)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = line_chart("title", [Line("name", [0, 1], [1.0, 2.0])], "x")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_images(chart, tmp_path / "file")
    monkeypatch.setattr(images, "_FAMILIES", ("No Such Font",))
    with pytest.raises(ConfigError, match=r"none of the fonts No Such Font is installed.*apt-get install fonts-dejavu"):
        write_images(chart, tmp_path)
    monkeypatch.setattr(images, "resvg_py", None)
    with pytest.raises(ConfigError, match="pip install resvg_py"):
        write_images(chart, tmp_path)
