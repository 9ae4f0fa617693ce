"""The run directory is touched only when everything was checked, and says how the run ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import ALONE, tiny_config
from tests.support.training import checkpoint, records, state, status, train_alone
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import CheckpointError, ConfigError, DataError, UserError
from xlmtrain.runtime import failpoints
from xlmtrain.train import async_checkpoint
from xlmtrain.train.run_dir import open_run


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data.mlm": {"fr": 1.0}}, ConfigError),
        ({"data.tlm": {"de-fr": 1.0}}, ConfigError),
        ({"evaluate.metric": "valid/clm_ppl"}, ConfigError),
        ({"data.path": "nowhere"}, DataError),
    ],
)
def test_a_mistake_leaves_no_directory(
    tiny_dataset: Path, tmp_path: Path, changes: dict[str, Any], error: type[UserError]
) -> None:
    with pytest.raises(error):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset, changes))
    assert list(tmp_path.iterdir()) == []


def test_a_model_larger_than_the_memory_leaves_no_directory(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlmtrain.commands.train.device_memory", lambda device: 10_000)
    with pytest.raises(ConfigError, match=r"on each of 1 device\(s\), and 0.0 GB are there"):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_fit_its_checkpoint_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    train_alone(config, stop_after=1)
    settings = tmp_path / "run" / "config.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    content["model"]["layers"] = config.model.layers = 2  # the record was tampered with, the checkpoint was not
    settings.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"step-00000001: does not fit the model: encoder\.blocks\.1\."):
        train_alone(config)


def test_status_is_kept_up_to_date(tiny_dataset: Path, tmp_path: Path) -> None:
    config, dataset = tiny_config(tmp_path / "run", tiny_dataset), Dataset(tiny_dataset)
    with open_run(config, dataset, ALONE) as run:
        run.status("running")
        assert status(run.path)["status"] == "running"
    with pytest.raises(ZeroDivisionError), open_run(config, dataset, ALONE):
        raise ZeroDivisionError("why")
    assert status(config.run) == {"status": "failed", "reason": "ZeroDivisionError: why"}


def test_a_disk_that_stays_full_ends_the_run_with_its_checkpoints_whole(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_checkpoint, "RETRY_DELAYS", (0.0, 0.0))
    config = tiny_config(tmp_path / "run", tiny_dataset, {"evaluate.every": 0, "train.steps": 40})
    failpoints.arm("save-write:3-:0:enospc", rank=0)  # from the save of step 10 on
    with pytest.raises(CheckpointError, match="No space left"):
        train_alone(config)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000005"]
    assert status(config.run)["status"] == "failed"
    assert "3 saves in a row failed" in status(config.run)["reason"]
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.count("checkpoint not saved, training goes on") == 2
    failpoints.arm(None, rank=0)
    assert train_alone(config).status == "done"


def test_figures_that_cannot_be_written_change_nothing(tiny_dataset: Path, tmp_path: Path) -> None:
    for name, armed in (("straight", None), ("full", "metrics:7-12:0:enospc")):
        failpoints.arm(armed, rank=0)
        train_alone(tiny_config(tmp_path / name, tiny_dataset))
    log = (tmp_path / "full" / "log.txt").read_text(encoding="utf-8")
    assert log.count("metrics are missing from") == 1
    assert "No space left on device" in log
    straight, full = (checkpoint(tmp_path / name, 20) / "model.safetensors" for name in ("straight", "full"))
    assert straight.read_bytes() == full.read_bytes()
    assert state(tmp_path / "straight", 20) == state(tmp_path / "full", 20)
    there, written = (records(tmp_path / name) for name in ("straight", "full"))
    missing = [index for index, record in enumerate(there) if record not in written]
    # Six in a row, of which some are records of energy.
    assert missing == list(range(missing[0], missing[0] + len(missing)))
    assert 3 <= len(missing) <= 6
    assert written == [record for index, record in enumerate(there) if index not in missing]


def test_training_learns(tiny_dataset: Path, tmp_path: Path) -> None:
    """The data says much about every next word: 60 steps must show in all figures."""
    changes = {"train.steps": 60, "evaluate.every": 60, "data.clm": {"de": 1.0}, "model.dropout": 0.0}
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, changes))
    first, last = (record for record in records(tmp_path / "run") if "valid/mlm_ppl" in record)
    for name in ("mlm", "clm", "tlm"):
        assert last[f"valid/{name}_ppl"] < 0.6 * first[f"valid/{name}_ppl"]


def test_a_directory_that_cannot_be_written_is_said(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xlmtrain.train.run_dir.write_json", full)
    with pytest.raises(ConfigError, match=r"run=.*/run: cannot be used \(\[Errno 28\] No space left on device\)"):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset))
    monkeypatch.undo()
    assert train_alone(tiny_config(tmp_path / "run", tiny_dataset), stop_after=1).status == "preempted"


def test_advice_that_fails_never_ends_a_run(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AttributeError("a preset cannot be read")

    monkeypatch.setattr("xlmtrain.diagnostics.run_monitor.RunMonitor.new_warnings", broken)
    assert train_alone(tiny_config(tmp_path / "run", tiny_dataset)).status == "done"
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.count("no more advice on this run: AttributeError: a preset cannot be read") == 1
