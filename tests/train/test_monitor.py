"""Numbers that are wrong are found in their step, named, and left out or the end, as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny import run_processes, tiny_config
from tests.support.training import assert_same_run, checkpoint, records, state, status, train_alone, train_on
from xlmtrain.config.schema import Config
from xlmtrain.config.train import OnNonFinite, OnSpike, Precision
from xlmtrain.errors import NumericalError, UserError
from xlmtrain.model.attention import AttentionView, SelfAttention
from xlmtrain.runtime import failpoints
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.monitor import MAX_CONSECUTIVE_SKIPS
from xlmtrain.train.step import StepOutput, TrainStep

LONG: dict[str, Any] = {"train.steps": 60, "train.save_every": 20, "evaluate.every": 0, "model.dropout": 0.0}
MICRO_BATCHES = 4
"""Of a step: the n-th loss of a process alone belongs to step ceil(n / 4)."""


def log_of(config: Config) -> str:
    return (Path(config.run) / "log.txt").read_text(encoding="utf-8")


def weights(config: Config, step: int) -> bytes:
    return (checkpoint(config.run, step) / "model.safetensors").read_bytes()


def test_nan_ends_the_run_with_its_step_rank_and_sub_batches(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset)
    failpoints.arm(f"loss:{6 * MICRO_BATCHES + 2}:0:nan", rank=0)
    with pytest.raises(NumericalError) as caught:
        train_alone(config)
    message = str(caught.value)
    assert caught.value.exit_code == 5
    assert message.startswith("the gradient is not finite in step 7, made of ")
    assert message.count(" sub-batch ") == MICRO_BATCHES
    assert "(xlmtrain show-data step=7 shows them): rank 0: the loss was nan, but is finite when computed" in message
    assert status(config.run) == {"status": "failed", "reason": f"NumericalError: {message}"}
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")


def test_nan_is_skipped_and_counted(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "run",
        tiny_dataset,
        {"train.on_non_finite": OnNonFinite.skip, "train.save_every": 1, "train.keep_last": 99},
    )
    failpoints.arm(f"loss:{6 * MICRO_BATCHES + 2}:0:nan", rank=0)
    assert train_alone(config).status == "done"
    assert log_of(config).count("the gradient is not finite in step 7, made of ") == 1
    assert weights(config, 6) == weights(config, 7) != weights(config, 8)
    training = [record for record in records(config.run) if "train/lr" in record]
    assert [record.get("train/skipped_steps", 0) for record in training] == [0] * 6 + [1] * 14
    assert "train/loss" not in training[6]
    assert state(config.run, 20)["progress"]["skipped"] == 1


def test_nan_for_ever_ends_the_run_all_the_same(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {"train.on_non_finite": OnNonFinite.skip})
    failpoints.arm(f"loss:{2 * MICRO_BATCHES + 1}-:0:nan", rank=0)
    with pytest.raises(
        NumericalError,
        match=rf"not finite in step {3 + MAX_CONSECUTIVE_SKIPS}, .*as in the {MAX_CONSECUTIVE_SKIPS} steps",
    ):
        train_alone(config)


def test_only_steps_in_a_row_count(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {"train.on_non_finite": OnNonFinite.skip})
    first, last = 2 * MICRO_BATCHES, 18 * MICRO_BATCHES
    good = 10 * MICRO_BATCHES  # step 11
    failpoints.arm(f"loss:{first + 1}-{good}:0:nan,loss:{good + MICRO_BATCHES + 1}-{last}:0:nan", rank=0)
    assert train_alone(config).status == "done"
    assert state(config.run, 20)["progress"]["skipped"] == 15 > MAX_CONSECUTIVE_SKIPS


@pytest.mark.parametrize("where", ["encoder.blocks.0", "head"])
def test_the_module_is_named(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A weight became infinite, as by a flipped bit."""
    original = TrainStep.__call__

    def broken(self: TrainStep, data: Any, targets: list[float]) -> StepOutput:
        if data.step == 3:
            module = self.model.get_submodule(where)
            with torch.no_grad():
                next(module.parameters()).view(-1)[0] = torch.inf
        return original(self, data, targets)

    monkeypatch.setattr(TrainStep, "__call__", broken)
    with pytest.raises(NumericalError, match=rf"in step 4, .*: rank 0: the output of {where}\.?[\w.]* \(\w+\.[\w-]+, "):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset))


def test_the_batches_of_the_step_are_computed_again(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones are joined in the step; what is not finite only then is found, too."""
    original = SelfAttention.forward

    def broken(self: SelfAttention, x: torch.Tensor, view: AttentionView, at: torch.Tensor | None) -> torch.Tensor:
        return original(self, x, view, at) * (torch.nan if len(view.groups) > 1 else 1.0)

    monkeypatch.setattr(SelfAttention, "forward", broken)
    batches = {"train.batch_tokens": 256, "train.micro_batch_tokens": 256}
    named = r"rank 0: the output of encoder\.blocks\.0\.attention \(\w+\.\S+, .*; \w+\."
    with pytest.raises(NumericalError, match=named):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset, batches))


def test_a_spike_is_flagged_with_its_sub_batches_and_counted(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, LONG)
    failpoints.arm(f"loss:{49 * MICRO_BATCHES + 1}:0:large", rank=0)
    train_alone(config)
    (line,) = [line for line in log_of(config).splitlines() if "loss spike" in line]
    assert " standard deviations above the last steps' in step 50, made of " in line
    assert "xlmtrain show-data step=50" in line
    assert "step is skipped" not in line
    training = [record for record in records(config.run) if "train/lr" in record]
    assert [record.get("train/spikes", 0) for record in training] == [0] * 49 + [1] * 11
    assert len(state(config.run, 60)["progress"]["losses"]) == 60


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.fp16])
def test_a_spike_is_skipped(tiny_dataset: Path, tmp_path: Path, precision: Precision) -> None:
    changes = {
        **LONG,
        "train.on_spike": OnSpike.skip,
        "train.precision": precision,
        "train.initial_loss_scale": 16.0,
        "train.save_every": 1,
        "train.keep_last": 99,
    }
    config = tiny_config(tmp_path / "run", tiny_dataset, changes)
    failpoints.arm(f"loss:{49 * MICRO_BATCHES + 1}:0:large", rank=0)
    train_alone(config)
    assert "; the step is skipped" in log_of(config)
    assert weights(config, 48) != weights(config, 49) == weights(config, 50) != weights(config, 51)


def test_a_resumed_run_sees_the_same_spikes(tiny_dataset: Path, tmp_path: Path) -> None:
    """The losses to compare with are a part of the state."""
    runs = [tiny_config(tmp_path / name, tiny_dataset, {**LONG, "train.on_spike": OnSpike.skip}) for name in "ab"]
    for config, stops in zip(runs, ([], [40])):
        for stop in stops:
            train_alone(config, stop_after=stop)
        failpoints.arm(f"loss:{(49 - sum(stops)) * MICRO_BATCHES + 1}:0:large", rank=0)
        train_alone(config)
    assert state(runs[0].run, 60)["progress"]["spikes"] == 1
    assert_same_run(runs[0].run, runs[1].run, 60)


def error_of(distributed: Distributed, config: Config, fault: str, drift_at: int) -> str:
    """How the run ends on this process; from step ``drift_at`` on, rank 1 has another weight."""
    failpoints.arm(fault, distributed.rank)
    original = TrainStep.__call__

    def drifting(self: TrainStep, data: Any, targets: list[float]) -> StepOutput:
        if data.step + 1 == drift_at and distributed.rank == 1:
            with torch.no_grad():
                self.model.head.bias[3] += 1e-3
        return original(self, data, targets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", drifting)
        try:
            train_on(distributed, config)
        except UserError as error:
            return str(error)
    return "done"


def test_on_two_processes(tiny_dataset: Path, tmp_path: Path) -> None:
    """Both learn of one's NaN in the same step; weights that drift apart are found within compare_every steps."""
    changes = {"evaluate.every": 0, "train.replica_check_every": 3, "train.save_every": 20}
    config = tiny_config(tmp_path / "nan", tiny_dataset, changes)
    every = run_processes(2, error_of, tmp_path, config, "loss:9:1:nan", 0)  # two micro-batches a step and process
    for message in every:
        assert message.startswith("the gradient is not finite in step 5, made of ")
        assert ": rank 1: the loss was nan, but is finite when computed again. " in message
    config = tiny_config(tmp_path / "drift", tiny_dataset, changes)
    for message in run_processes(2, error_of, tmp_path, config, "", 8):
        assert message.startswith("after step 9 the weights are not the same on all processes; these differ from rank ")
        assert "differ from rank 0, first in\n  rank 1: " in message
