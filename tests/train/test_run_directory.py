"""The run directory is touched only when everything was checked, and says how the run ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import ALONE, tiny_config
from training import records, status, train_alone

from xlmtrain.data.corpus import Dataset
from xlmtrain.errors import CheckpointError, ConfigError, DataError, UserError
from xlmtrain.train.checkpoint import CheckpointStore
from xlmtrain.train.run import RunDirectory


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
    with RunDirectory(config, dataset, ALONE) as run:
        run.status("running")
        assert status(run.path)["status"] == "running"
    with pytest.raises(ZeroDivisionError), RunDirectory(config, dataset, ALONE):
        raise ZeroDivisionError("why")
    assert status(config.run) == {"status": "failed", "reason": "ZeroDivisionError: why"}


def test_a_disk_that_is_full_ends_the_run_with_its_checkpoints_whole(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {"evaluate.every": 0})

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        original = CheckpointStore.save

        def save(self: CheckpointStore, step: int, *rest: Any) -> Path:
            if step == 10:
                patch.setattr("xlmtrain.train.checkpoint_files.save_file", full)
            return original(self, step, *rest)

        patch.setattr(CheckpointStore, "save", save)
        with pytest.raises(CheckpointError, match="No space left"):
            train_alone(config)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000005"]
    assert status(config.run)["status"] == "failed"
    assert train_alone(config).status == "done"


def test_training_learns(tiny_dataset: Path, tmp_path: Path) -> None:
    """The data says much about every next word: 60 steps must show in all figures."""
    changes = {"train.steps": 60, "evaluate.every": 60, "data.clm": {"de": 1.0}, "model.dropout": 0.0}
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, changes))
    first, last = (record for record in records(tmp_path / "run") if "valid/mlm_ppl" in record)
    for name in ("mlm", "clm", "tlm"):
        assert last[f"valid/{name}_ppl"] < 0.6 * first[f"valid/{name}_ppl"]
