"""Weights sharded over the processes: the same run, the same checkpoints, less memory."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from tests.support.tiny import run_processes, tiny_config
from tests.support.training import assert_same_run, checkpoint, records, train_alone, train_on
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision, ReduceDtype, Sharding
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import NumericalError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime import failpoints
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.loop import TrainingLoop
from xlmtrain.train.parallel import shard

# Cut so that the processes have unlike numbers of micro-batches.
CHANGES = {
    "train.precision": Precision.fp32,
    "data.clm": {"de": 1.0},
    "model.layers": 2,
    "train.steps": 10,
    "train.micro_batch_tokens": 32,
}
WHOLE = 10**6


def settings(run: Path, data: Path, sharding: Sharding, changes: dict[str, Any] | None = None) -> Config:
    return tiny_config(run, data, {**CHANGES, "train.sharding": sharding, **(changes or {})})


def starts(distributed: Distributed, of_a_host: int, *plan: tuple[Config, int]) -> list[str]:
    """Several starts of the program: the settings, and after how many steps SIGTERM comes."""
    os.environ["LOCAL_WORLD_SIZE"] = str(of_a_host)
    return [train_on(distributed, config, stop_after).status for config, stop_after in plan]


def assert_close(a: Path, b: Path, step: int) -> None:
    """Losses, figures of evaluation and weights, to 1e-5."""
    for one, other in zip(records(a), records(b), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-5), key
    first, second = (load_file(checkpoint(run, step) / "model.safetensors") for run in (a, b))
    for name, weight in first.items():
        if not name.endswith("qkv.bias"):  # the keys' has no gradient but for rounding, which Adam makes large
            torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("sharding", "processes"),
    [(Sharding.full, 2), pytest.param(Sharding.hybrid, 4, marks=pytest.mark.slow)],
)
def test_the_run_is_that_of_whole_weights(
    tiny_dataset: Path, tmp_path: Path, sharding: Sharding, processes: int
) -> None:
    """And stopped and resumed it is the straight run bit for bit, resumed with whole weights up to rounding."""
    names = {"replicated": Sharding.none, "straight": sharding, "stopped": sharding, "changed": sharding}
    runs = {name: settings(tmp_path / name, tiny_dataset, how) for name, how in names.items()}
    replicated, straight, stopped, changed = runs.values()
    plan = [(replicated, WHOLE), (straight, WHOLE), (stopped, 6), (stopped, WHOLE), (changed, 6)]
    for outcomes in run_processes(processes, starts, tmp_path, 2, *plan):
        assert outcomes == ["done", "done", "preempted", "done", "preempted"]
    assert_close(tmp_path / "replicated", tmp_path / "straight", 10)
    assert_same_run(straight.run, stopped.run, 10)
    train_alone(settings(tmp_path / "changed", tiny_dataset, Sharding.none))
    assert_close(tmp_path / "straight", tmp_path / "changed", 10)


def held(distributed: Distributed, config: Config, of_a_host: int) -> tuple[int, int]:
    """Numbers of the model that this process holds, and all of them."""
    os.environ["LOCAL_WORLD_SIZE"] = str(of_a_host)
    model = LanguageModel(config.model, len(Dataset(config.data.path).vocab), 2)
    total = sum(parameter.numel() for parameter in model.parameters())
    shard(model, config.train, Precision.fp32, distributed)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return sum(parameter.to_local().numel() for parameter in model.parameters()), total  # type: ignore[attr-defined]


@pytest.mark.parametrize("sharding", [Sharding.full, Sharding.hybrid])
def test_each_process_holds_its_share(tiny_dataset: Path, tmp_path: Path, sharding: Sharding) -> None:
    config = settings(tmp_path, tiny_dataset, sharding)
    found = run_processes(2, held, tmp_path, config, 2 if sharding is Sharding.full else 1)
    total = found[0][1]
    if sharding is Sharding.full:
        assert sum(mine for mine, _ in found) == total
        assert all(0.4 * total < mine < 0.6 * total for mine, _ in found)
    else:  # one process a host
        assert found == [(total, total)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp16])
def test_half_precision(tiny_dataset: Path, tmp_path: Path, precision: Precision) -> None:
    """Loss scale included; fp16 starts with one at which the gradients overflow."""
    changes = {
        "train.precision": precision,
        "train.reduce_dtype": ReduceDtype.half,
        "train.initial_loss_scale": 2.0**24,
        "train.steps": 20,
        "train.micro_batch_tokens": 0,
    }
    runs = [settings(tmp_path / how.value, tiny_dataset, how, changes) for how in (Sharding.none, Sharding.full)]
    assert run_processes(2, starts, tmp_path, 2, *((run, WHOLE) for run in runs)) == [["done", "done"]] * 2
    replicated, sharded = (records(run.run) for run in runs)
    losses = [[one["train/loss"] for one in run if "train/loss" in one] for run in (replicated, sharded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    if precision is Precision.fp16:
        for run in (replicated, sharded):
            assert 0 < max(one.get("train/skipped_steps", 0) for one in run) < 20


def ends(distributed: Distributed, config: Config, of_a_host: int, weight: str, addend: float) -> str:
    """What a run ends with: NaN on rank 1, or a weight of the middle rank changed behind its back."""
    os.environ["LOCAL_WORLD_SIZE"] = str(of_a_host)
    if not weight:
        failpoints.arm("loss:3:1:nan", distributed.rank)
    else:
        step = TrainingLoop._step

        def spoiled(loop: TrainingLoop, data: Any) -> bool:
            stopping = step(loop, data)
            if distributed.rank == distributed.world_size // 2 and loop.state.step == 4:
                spoilt = loop.train_step.model.get_parameter(weight).detach()
                assert isinstance(spoilt, DTensor)
                spoilt.to_local().view(-1)[0] += addend
            return stopping

        TrainingLoop._step = spoiled  # type: ignore[method-assign]
    with pytest.raises(NumericalError) as caught:
        train_on(distributed, config)
    return str(caught.value)


def test_what_is_not_finite_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    config = settings(tmp_path / "run", tiny_dataset, Sharding.full)
    for message in run_processes(2, ends, tmp_path, config, 2, "", 0.0):
        assert "the gradient is not finite in step" in message
        assert "rank 1: the loss was nan, but is finite when computed again" in message


def test_the_module_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    """An infinite weight in one process's shard; the processes have unlike numbers of micro-batches."""
    config = settings(tmp_path / "run", tiny_dataset, Sharding.full)
    place = "encoder.blocks.1"
    for message in run_processes(2, ends, tmp_path, config, 2, f"{place}.attention.out.weight", math.inf):
        assert re.search(
            rf"in step 5, .*: rank 0: the output of {place}.* \(\w.*; rank 1: the output of {place}", message
        )


@pytest.mark.slow
def test_shares_that_differ_between_hosts_are_found(tiny_dataset: Path, tmp_path: Path) -> None:
    config = settings(tmp_path / "run", tiny_dataset, Sharding.hybrid, {"train.replica_check_every": 5})
    for message in run_processes(4, ends, tmp_path, config, 2, "head.bias", 1e-3):
        assert "after step 5 the weights are not the same on all processes; these differ from rank 0" in message
        assert "rank 2: head.bias" in message


def test_checkpoints_are_whole(tiny_dataset: Path, tmp_path: Path) -> None:
    config = settings(tmp_path / "run", tiny_dataset, Sharding.full, {"train.steps": 2})
    run_processes(2, starts, tmp_path, 2, (config, WHOLE))
    model = LanguageModel(config.model, len(Dataset(tiny_dataset).vocab), 2)
    saved = load_file(checkpoint(config.run, 2) / "model.safetensors")
    assert {name: value.shape for name, value in saved.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    averages = load_file(checkpoint(config.run, 2) / "optimizer.safetensors")
    assert averages["exp_avg.head.bias"].shape == saved["head.bias"].shape
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["sharding"] == "full"


def observed(distributed: Distributed, config: Config) -> dict[str, Any]:
    """Of a run: the most numbers that evaluation holds, host copies for a checkpoint, formats of gathered weights."""
    seen: dict[str, Any] = {"most": 0, "dtypes": set()}
    logits, copy = LanguageModel.logits, AsyncCheckpointer._copy

    def counted(model: LanguageModel, batch: Batch) -> torch.Tensor:
        held = [parameter.detach() for parameter in model.parameters()]
        local = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in held]
        seen["most"] = max(seen["most"], sum(weight.numel() for weight in local))
        seen["dtypes"] |= {str(weight.dtype) for weight in held if not isinstance(weight, DTensor)}
        return logits(model, batch)

    def copied(saver: AsyncCheckpointer, part: str, tensors: Any) -> Any:
        result = copy(saver, part, tensors)
        seen[part] = sum(tensor.nbytes for tensor in result.values())
        return result

    with mock.patch.object(LanguageModel, "logits", counted), mock.patch.object(AsyncCheckpointer, "_copy", copied):
        train_on(distributed, config)
    return seen


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_nobody_holds_what_others_keep(tiny_dataset: Path, tmp_path: Path, precision: Precision) -> None:
    """Evaluation gathers block by block, in the precision of the run; one process copies the optimizer to its host."""
    changes = {"train.steps": 2, "model.layers": 4, "model.dim": 32, "train.precision": precision}
    config = settings(tmp_path / "run", tiny_dataset, Sharding.full, changes)
    first, second = run_processes(2, observed, tmp_path, config)
    model = LanguageModel(config.model, len(Dataset(tiny_dataset).vocab), 2)
    total = sum(parameter.numel() for parameter in model.parameters())
    for seen in (first, second):
        assert 0 < seen["most"] < 0.7 * total
        assert seen["dtypes"] == {"torch.float32" if precision is Precision.fp32 else "torch.bfloat16"}
    assert (first["model"], second["model"]) == (4 * total, 0)
    assert first["optimizer"] > 8 * total
    assert second["optimizer"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "sharding", "compiled", "tolerance"),
    [
        (Precision.fp32, Sharding.full, True, 1e-4),
        (Precision.bf16, Sharding.full, True, 1e-2),
        (Precision.fp16, Sharding.full, False, 1e-2),
        (Precision.fp16, Sharding.hybrid, False, 1e-2),
    ],
)
def test_sharding_with_compile_and_half_precision(
    tiny_dataset: Path, tmp_path: Path, precision: Precision, sharding: Sharding, compiled: bool, tolerance: float
) -> None:
    changes = {"train.precision": precision, "train.compile": compiled, "evaluate.max_pairs": 8}
    if compiled:
        changes |= {"model.dropout": 0.0, "model.attention_dropout": 0.0}
    runs = [
        settings(tmp_path / "plain", tiny_dataset, Sharding.none, {**changes, "train.compile": False}),
        settings(tmp_path / "sharded", tiny_dataset, sharding, changes),
    ]
    processes = 4 if sharding is Sharding.hybrid else 2
    outcomes = run_processes(processes, starts, tmp_path, 2, *((run, WHOLE) for run in runs))
    assert outcomes == [["done", "done"]] * processes
    plain, sharded = ([one["train/loss"] for one in records(run.run) if "train/loss" in one] for run in runs)
    assert sharded == pytest.approx(plain, rel=tolerance)
