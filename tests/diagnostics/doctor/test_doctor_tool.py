"""The program: what it prints, and the exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import programs
from tests.support.programs import script
from tests.support.repository import REPOSITORY
from tests.support.tiny import tiny_config
from xlmtrain.data.dataset import Dataset
from xlmtrain.diagnostics.doctor import checks
from xlmtrain.diagnostics.doctor.checks import run_checks
from xlmtrain.diagnostics.doctor.environment import Machine
from xlmtrain.diagnostics.finding import Severity

MACHINE = Machine(cores=4, threads=1, flags=frozenset(), memory=10**11, shared_memory=10**10)
SENSIBLE = {"optim.warmup_steps": 100, "train.steps": 200, "train.save_every": 100}


def test_all_parts_are_checked(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "quality_warnings", lambda dataset, model: [])  # of words that are single letters
    config = tiny_config(tmp_path / "run", tiny_dataset, SENSIBLE)
    found = list(run_checks(config, MACHINE, 2, steps=10))
    assert [one for _, one in found if one.severity is Severity.error] == []
    assert list(dict.fromkeys(part for part, _ in found)) == ["environment", "settings", "data", "first steps"]
    assert any("the loss falls" in str(one) for _, one in found)
    assert Dataset(tiny_dataset).fingerprint[:12] in str(found)
    assert not (tmp_path / "run").exists()


def test_nothing_is_tried_after_an_error(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {**SENSIBLE, "optim.lr": 100.0})
    *_, (part, finding) = run_checks(config, MACHINE, 1, steps=10)
    assert part == "first steps"
    assert finding.what == "None were tried: the errors above come first."


def test_data_that_is_not_there(tmp_path: Path) -> None:
    *_, (part, finding) = run_checks(tiny_config(tmp_path / "run", tmp_path / "none", SENSIBLE), MACHINE, 1, steps=10)
    assert part == "data"
    assert "is " + str(tmp_path / "none") + " made by xlmtrain prepare?" in finding.what


def test_the_program_prints_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("experiment=quickstart", f"data.path={tmp_path}", f"run={tmp_path}/run", "optim.lr=5")
    code, printed, errors = programs.run_here(monkeypatch, capsys, "doctor", *arguments)
    assert (code, errors) == (1, "")
    assert "ERROR settings: optim.lr=5 is high for a width of 128" in printed
    assert f"ERROR data: {tmp_path}/dataset.json: No such file or directory" in printed
    assert printed.endswith("\n2 errors\n")


def test_a_missing_package(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n", encoding="utf-8")
    environment = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    done = programs.run(script("doctor"), "experiment=quickstart", code=1, environment=environment)
    assert "no torch here" in done.stdout + done.stderr
