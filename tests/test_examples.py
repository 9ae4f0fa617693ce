"""The notebooks in ``examples``: their code runs as it stands, and their stored output is that of such a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "from_two_text_files.ipynb"


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_shows_what_it_prints() -> None:
    assert [cell["execution_count"] for cell in code_cells()] == list(range(1, len(code_cells()) + 1))
    printed = "".join(line for cell in code_cells() for output in cell["outputs"] for line in output["text"])
    assert "done at step" in printed
    assert "Traceback" not in printed


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_cells():
        exec("".join(cell["source"]), names)
    assert "done at step" in capsys.readouterr().out
    assert len(names["guesses"]) == 5
    assert names["vectors"][0].shape == names["vectors"][1].shape
