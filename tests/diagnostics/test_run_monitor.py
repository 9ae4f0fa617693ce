"""Warnings during training, and in the report of a run."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.config import load
from xlmtrain.diagnostics import baseline, run_monitor
from xlmtrain.diagnostics.run_monitor import RunMonitor
from xlmtrain.report.curves import reference_of
from xlmtrain.report.run_data import RunData
from xlmtrain.report.sections import settings

CHANGES = {"train.steps": 6, "train.save_every": 2, "evaluate.every": 0, "mask.inverse_frequency_exponent": 0.5}


@pytest.fixture
def run(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(baseline, "REFERENCES", tmp_path / "none")
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, CHANGES))
    return tmp_path / "run"


def test_training_warns_once_that_it_is_far_behind(
    run: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert not any("Far behind" in message for message in caplog.messages)
    better = {"valid/mlm_ppl": [[0, 100.0], [1, 1.1]], "train/mlm_loss": [[0, 4.0], [1, 0.1]]}
    (tmp_path / "known.json").write_text(replace(reference_of(RunData(run)), curves=better).as_json(), "utf-8")
    monkeypatch.setattr(baseline, "REFERENCES", tmp_path)
    shutil.rmtree(run)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train_alone(tiny_config(run, tiny_dataset, CHANGES))
    (warning,) = [message for message in caplog.messages if "Far behind" in message]
    assert warning.startswith("Far behind the preset ")
    assert "Likely: no warm-up to speak of" in warning
    reported = [finding.what.partition(":")[0] for finding in RunData(run).findings()]
    assert warning.partition(":")[0] in reported


def test_duplicate_lines_are_a_cause_while_the_text_is_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_monitor, "duplicate_rate", lambda corpus: 0.6 if corpus.name == "train.de" else 0.1)
    stuck = [
        {"step": 100 * step, "train/loss": 9.0, "train/mlm_loss": 9.0, "progress/tokens": 10**6 * step}
        for step in range(1, 40)
    ]
    cause = "60% of the training lines occurred before: leave out duplicates when preparing the text"
    finding = next(one for one in RunMonitor(run).diagnose(stuck) if "is stuck" in one.what)
    assert cause in finding.causes
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    for data in ({**config["data"], "path": "nowhere"}, {}):
        (run / "config.json").write_text(json.dumps({**config, "data": data}), encoding="utf-8")
        finding = next(one for one in RunMonitor(run).diagnose(stuck) if "is stuck" in one.what)
        assert cause not in finding.causes


def tab_in_a_preset(configs: Path) -> None:
    (configs / "experiment" / "mine.yaml").write_text("optim:\n\tlr: 1\n", encoding="utf-8")


def no_preset(configs: Path) -> None:
    shutil.rmtree(configs / "experiment")
    (configs / "experiment").mkdir()


def broken_reference(configs: Path) -> None:
    (configs / "reference" / "small_cpu.json").write_text('{"preset": "small_cpu"', encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "lines"),
    [(tab_in_a_preset, 0), (no_preset, 0), (broken_reference, 1)],
    ids=["tab", "no preset", "broken reference"],
)
def test_a_broken_file_beside_the_presets_does_not_end_a_run(
    damage: Callable[[Path], None],
    lines: int,
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(load.CONFIG_DIR, configs)
    damage(configs)
    monkeypatch.setattr(load, "CONFIG_DIR", configs)
    monkeypatch.setattr(baseline, "PRESETS", configs / "experiment")
    monkeypatch.setattr(baseline, "REFERENCES", configs / "reference")
    with caplog.at_level(logging.WARNING):
        outcome = train_alone(tiny_config(tmp_path / "run", tiny_dataset, CHANGES))
    assert (outcome.status, outcome.reason) == ("done", "6 steps")
    assert len([message for message in caplog.messages if message.startswith("no more advice on this run: ")]) == lines
    monkeypatch.setattr(baseline, "REFERENCES", tmp_path / "none")
    assert "Nearest preset" in str(settings(RunData(tmp_path / "run"))) or damage is no_preset


def test_no_settings_are_composed_while_a_run_trains(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline._preset_settings.cache_clear()
    monkeypatch.setattr(load, "_composed", lambda *arguments: pytest.fail("composed"))
    assert train_alone(tiny_config(tmp_path / "run", tiny_dataset, CHANGES)).status == "done"
