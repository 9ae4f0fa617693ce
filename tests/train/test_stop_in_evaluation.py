"""A signal ends an evaluation after the batch at hand; the next start makes up for it, and nothing stands twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
import tensorboard.summary.writer.event_file_writer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.tiny import ALONE, run_processes, tiny_config
from tests.support.training import assert_same_run, checkpoint, records, state, status, train_alone
from xlmtrain.commands.train import train
from xlmtrain.config.schema import Config
from xlmtrain.evaluate import perplexity
from xlmtrain.runtime import failpoints
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import StopRequest
from xlmtrain.train.loop import Outcome


@pytest.fixture(scope="module")
def straight(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("straight") / "run"
    train_alone(tiny_config(run, tiny_dataset))
    return run


def batches(tiny_dataset: Path, tmp_path: Path) -> int:
    """Of one evaluation."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perplexity, "failpoint", seen.append)
        train_alone(tiny_config(tmp_path / "counted", tiny_dataset, {"train.steps": 1, "evaluate.every": 0}))
    return Counter(seen)["evaluate"] // 2


@pytest.mark.parametrize("step", [0, 5, 20])
def test_it_ends_at_once_and_is_made_up_for(
    straight: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    writers = tensorboard.summary.writer.event_file_writer
    monkeypatch.setattr(writers, "_global_uid", writers.AtomicCounter(1))  # see test_resume.py
    count = batches(tiny_dataset, tmp_path)
    assert count > 4
    config = tiny_config(tmp_path / "run", tiny_dataset)
    failpoints.arm(f"evaluate:{step // 5 * count + 2}:0:term", rank=0)
    outcome = train(config, ALONE, StopRequest())
    assert failpoints._reached["evaluate"] == step // 5 * count + 2
    assert (outcome.status, outcome.signal) == ("preempted", signal.SIGTERM)
    assert status(config.run) == {"status": "preempted", "reason": "signal 15"}
    if step:
        assert checkpoint(config.run, step).is_dir()
        assert state(config.run, step)["progress"]["evaluated"] == step - 5
    if step == 5:  # the evaluation is made up for, but the process is killed before the checkpoint knows of it
        failpoints.arm("save-open:1:0:raise", rank=0)
        with pytest.raises(RuntimeError, match="a fault on purpose"):
            train_alone(config)
    failpoints.arm(None, rank=0)
    assert train_alone(config).status == "done"
    assert_same_run(straight, config.run, 20)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    for name, steps in (("valid/mlm_ppl", [0, 5, 10, 15, 20]), ("train/loss", list(range(1, 21)))):
        assert [event.step for event in board.Scalars(name)] == steps
        values = [record[name] for record in records(straight) if name in record]
        assert [event.value for event in board.Scalars(name)] == pytest.approx(values, rel=1e-6)


def test_an_evaluation_that_was_made_up_for_is_saved(tiny_dataset: Path, tmp_path: Path) -> None:
    """Also where it found nothing better, as with a learning rate of almost nothing."""
    changes = {"optim.lr": 1e-30, "optim.warmup_init_lr": 0.0}
    straight, stopped = (tiny_config(tmp_path / name, tiny_dataset, changes) for name in ("straight", "stopped"))
    train_alone(straight)
    failpoints.arm(f"evaluate:{4 * batches(tiny_dataset, tmp_path) + 2}:0:term", rank=0)
    assert train(stopped, ALONE, StopRequest()).status == "preempted"
    failpoints.arm(None, rank=0)
    train_alone(stopped)
    assert state(stopped.run, 20)["progress"]["evaluated"] == 20
    assert_same_run(straight.run, stopped.run, 20)


def stop_one(distributed: Distributed, config: Config) -> tuple[Outcome, int]:
    """A signal reaches rank 1 alone, in its second batch of the first evaluation."""
    failpoints.arm("evaluate:2:1:term,never:1:0:raise", distributed.rank)  # what is not armed does not count
    return train(config, distributed, StopRequest()), failpoints._reached["evaluate"]


def test_all_processes_stop(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    (first, seen), (second, seen_by_second) = run_processes(2, stop_one, tmp_path, config)
    assert first.status == second.status == "preempted"
    assert seen_by_second == 2
    assert 0 < seen <= 4  # no further than the set at hand
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["step"] == 0
