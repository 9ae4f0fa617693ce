"""What training and report say of a run's figures."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.diagnostics import presets, run_monitor
from xlmtrain.diagnostics.run_monitor import RunMonitor
from xlmtrain.report.curves import reference_of
from xlmtrain.report.run_data import RunData

CHANGES = {"train.steps": 6, "train.save_every": 2, "evaluate.every": 0, "mask.inverse_frequency_exponent": 0.5}


@pytest.fixture
def run(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(presets, "REFERENCES", tmp_path / "none")
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, CHANGES))
    return tmp_path / "run"


def test_training_says_once_that_it_is_far_behind(
    run: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert not any("Far behind" in message for message in caplog.messages)
    better = {"valid/mlm_ppl": [[0, 100.0], [1, 1.1]], "train/mlm_loss": [[0, 4.0], [1, 0.1]]}
    (tmp_path / "known.json").write_text(replace(reference_of(RunData(run)), curves=better).as_json(), "utf-8")
    monkeypatch.setattr(presets, "REFERENCES", tmp_path)
    shutil.rmtree(run)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train_alone(tiny_config(run, tiny_dataset, CHANGES))
    (told,) = [message for message in caplog.messages if "Far behind" in message]
    assert told.startswith("WARNING: Far behind the preset ")
    assert "Likely: no warm-up to speak of" in told
    told_later = [finding.what.partition(":")[0] for finding in RunData(run).findings()]
    assert told.removeprefix("WARNING: ").partition(":")[0] in told_later


def test_repeated_lines_are_told_while_the_text_is_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_monitor, "repeated", lambda corpus: 0.6 if corpus.name == "train.de" else 0.1)
    stuck = [
        {"step": 100 * step, "train/loss": 9.0, "train/mlm_loss": 9.0, "progress/tokens": 10**6 * step}
        for step in range(1, 40)
    ]
    cause = "60% of the training lines occurred before: leave out duplicates when preparing the text"
    finding = next(one for one in RunMonitor(run).findings(stuck) if "is stuck" in one.what)
    assert cause in finding.causes
    settings = json.loads((run / "config.json").read_text(encoding="utf-8"))
    settings["data"]["path"] = "nowhere"
    (run / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    finding = next(one for one in RunMonitor(run).findings(stuck) if "is stuck" in one.what)
    assert cause not in finding.causes


def test_advice_is_not_worth_a_run(run: Path) -> None:
    """What it would be made of can be lost while the run goes on."""
    adviser = RunMonitor(run)
    (run / "metrics.jsonl").unlink()
    assert adviser.news() == []
