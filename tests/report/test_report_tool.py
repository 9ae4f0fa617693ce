"""The files that xlmtrain report may replace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from xlmtrain.commands import report as tool
from xlmtrain.errors import ConfigError
from xlmtrain.report import charts


def test_output_replaces_a_report_only(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    tool.main([f"run={run}", f"output={path}", "words=1"])
    first = path.read_text(encoding="utf-8")
    path.write_text(first.replace("</body>", "<p>old</p></body>"), encoding="utf-8")
    tool.main([f"run={run}", f"output={path}", "words=1"])
    assert path.read_text(encoding="utf-8") == first
    path.write_text("<!DOCTYPE html> my own page", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"output=.*page.html: exists already and is something else"):
        tool.main([f"run={run}", f"output={path}", "words=1"])
    assert path.read_text(encoding="utf-8") == "<!DOCTYPE html> my own page"


def test_images_need_matplotlib(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"images: matplotlib is not installed; install it with: pip install matp"):
        tool.main([f"run={run}", f"images={tmp_path / 'images'}", f"output={tmp_path / 'page.html'}"])
    assert list(tmp_path.iterdir()) == []
    tool.main([f"run={run}", f"output={tmp_path / 'page.html'}", "words=1"])
    assert "matplotlib is not installed" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_run_without_a_checkpoint_is_reported_without_views(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    tool.main([f"run={tmp_path / 'run'}"])
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "It has no checkpoint yet." in page
    assert "Curves" in page
