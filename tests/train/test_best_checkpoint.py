"""best.json names the best checkpoint, whatever happened between saving it and marking it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorboard.summary.writer.event_file_writer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.tiny import tiny_config
from tests.support.training import SECONDS, assert_same_run, checkpoint, state, status, train_alone
from xlmtrain.config.schema import Config
from xlmtrain.pretrained import CheckpointChoice, load
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.evaluation import headline

# Every evaluation is a new best, and only the newest checkpoint is kept besides the best.
CHANGES: dict[str, Any] = {"train.keep_last": 1, "optim.lr": 1e-2, "model.dropout": 0.0}


def best(run: Path | str) -> dict[str, Any]:
    """``best.json``."""
    return json.loads((Path(run) / "checkpoints" / "best.json").read_text(encoding="utf-8"))


def steps(run: Path | str) -> list[int]:
    """Steps of which there is a checkpoint."""
    return CheckpointManager(Path(run) / "checkpoints", 1).steps()


def kill_before_marking(config: Config, step: int) -> None:
    """Train until the checkpoint of ``step``, the best, is written; the process ends before best.json says so."""
    mark = CheckpointManager.mark_best

    def killed(self: CheckpointManager, marked: int, metric: str, value: float) -> None:
        if marked == step:
            raise RuntimeError("killed")
        mark(self, marked, metric, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointManager, "mark_best", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train_alone(config)
    assert status(config.run)["status"] == "failed"
    assert state(config.run, step)["progress"]["best_step"] == step  # the checkpoint knows that it is the best
    assert not (checkpoint(config.run, step).parent / "best.json").is_file() or best(config.run)["step"] < step


@pytest.fixture(scope="module")
def straight(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("straight") / "run"
    train_alone(tiny_config(run, tiny_dataset, CHANGES))
    assert (best(run)["step"], best(run)["metric"]) == (20, "valid/mlm_ppl")
    return run


@pytest.mark.parametrize("step", [5, 10])
def test_the_next_save_marks_it(tiny_dataset: Path, tmp_path: Path, step: int) -> None:
    """Without another evaluation: that the best one is an older one is known from the checkpoint alone.

    It also keeps the best from being deleted as too old.
    """
    config = tiny_config(tmp_path / "run", tiny_dataset, CHANGES)
    kill_before_marking(config, step)
    config.evaluate.every = 0
    assert train_alone(config, stop_after=2).status == "preempted"
    assert best(config.run) == {
        "step": step,
        "metric": "valid/mlm_ppl",
        "value": state(config.run, step)["progress"]["best"],
    }
    assert steps(config.run) == [step, step + 2]
    assert load(config.run, CheckpointChoice.best).step == step
    assert load(config.run, CheckpointChoice.last).step == step + 2
    train_alone(config, stop_after=4)
    assert steps(config.run) == [step, step + 6]
    assert best(config.run)["step"] == step


def test_a_kill_before_marking_leaves_no_trace(
    straight: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is the straight one, in its weights, every figure, TensorBoard's curves and best.json."""
    # TensorBoard reads files in the order of their names: the second, then how many files the process wrote before,
    # as digits. Starts of the same second from one process would come in a wrong order after the ninth.
    writers = tensorboard.summary.writer.event_file_writer
    monkeypatch.setattr(writers, "_global_uid", writers.AtomicCounter(1))
    config = tiny_config(tmp_path / "run", tiny_dataset, CHANGES)
    for step in (5, 15):
        kill_before_marking(config, step)
    assert train_alone(config).status == "done"
    assert_same_run(straight, config.run, 20)
    assert best(config.run) == best(straight)
    assert steps(config.run) == steps(straight) == [20]
    assert curves(config.run) == curves(straight)


def curves(run: Path | str) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's points (step, value), without what depends on the clock and the machine."""
    board = EventAccumulator(str(Path(run) / "tensorboard"))
    board.Reload()
    names = [name for name in board.Tags()["scalars"] if not name.startswith(("speed/", "energy/", SECONDS))]
    assert "valid/mlm_ppl" in names
    assert "train/loss" in names
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names}


def test_the_line_of_an_evaluation_is_short() -> None:
    metrics = {
        **{f"valid/{key}_ppl": 1234.567 for key in ("de_mlm", "en_mlm", "de-en_tlm", "mlm", "tlm", "cloze_mono")},
        **{
            f"valid/{key}_acc": 50.0 for key in ("de_mlm", "mlm", "de-en_cloze_parallel", "cloze_parallel", "retrieval")
        },
        "valid/round_trip_bleu": 7.0,
        "retrieval/de-en_layer0_cosine_top1": 1.0,
        "average/mlm_ppl": 3.0,
    }
    assert headline(metrics, "valid/de_mlm_acc") == (
        "mlm_ppl 1234.57  tlm_ppl 1234.57  de_mlm_acc 50.00  cloze_parallel_acc 50.00  retrieval_acc 50.00  "
        "round_trip_bleu 7.00  average/mlm_ppl 3.00"
    )
