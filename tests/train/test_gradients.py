"""One gradient, however the global batch is cut and distributed; and it is the gradient of the stated loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.support.tiny import ALONE, run_processes, tiny_config
from tests.support.training import GradientRecorder
from xlmtrain.config.data import OBJECTIVES
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.errors import NumericalError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.monitor import StepMonitor
from xlmtrain.train.parallel import ParallelModel, parallelize
from xlmtrain.train.state import TrainState
from xlmtrain.train.step import TrainStep

STEP = 3
CHANGES = {
    "data.clm": {"de": 1.0},
    "train.batch_tokens": 512,
    "model.dropout": 0.0,
    "model.attention_dropout": 0.0,
    "optim.clip_grad_norm": 0.0,
}


def gradient(distributed: Distributed, data: Path, changes: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The gradient that the optimizer is given for one global batch of eight sub-batches, and the losses."""
    config = tiny_config("run", data, {**CHANGES, **changes})
    dataset = Dataset(data)
    loader = Loader(config, dataset, distributed.rank, distributed.world_size)
    torch.manual_seed(0)
    model = LanguageModel(config.model, len(dataset.vocab), 2)
    optimizer = GradientRecorder(model.parameters(), lr=1.0)
    parallel = parallelize(model, config.train, Precision.fp32, distributed)
    train_step = TrainStep(config, parallel, optimizer, Precision.fp32, distributed)
    step_data = loader.make(STEP, loader.sampler.initial_state())
    counts = [float(sum(len(b.targets) for b in step_data.batches if b.objective == o)) for o in OBJECTIVES]
    result = train_step(step_data, distributed.all_reduce_sum(counts))
    found = dict(zip([name for name, _ in model.named_parameters()], optimizer.seen))
    return {
        **found,
        "losses": torch.tensor(distributed.all_reduce_sum(result.losses.tolist())),
        "norm": result.grad_norm,
    }


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    """Relative to the largest element of each parameter's gradient."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        limit = tolerance * value.abs().max().item()
        assert (value - b[name]).abs().max().item() <= limit, name


@pytest.fixture(scope="module")
def whole(tiny_dataset: Path) -> dict[str, torch.Tensor]:
    return gradient(ALONE, tiny_dataset, {})


def test_gradient_is_that_of_the_stated_loss(tiny_dataset: Path, whole: dict[str, torch.Tensor]) -> None:
    """Objectives by their share of the sub-batches; within one, the mean over all targets, not a mean of means."""
    config, dataset = tiny_config("run", tiny_dataset, CHANGES), Dataset(tiny_dataset)
    torch.manual_seed(0)
    model = LanguageModel(config.model, len(dataset.vocab), 2)
    loader = Loader(config, dataset)
    batches = loader.make(STEP, loader.sampler.initial_state()).batches
    assert {batch.objective for batch in batches} == {"mlm", "tlm", "clm"}
    total = torch.zeros(())
    for objective in ("mlm", "tlm", "clm"):
        mine = [batch for batch in batches if batch.objective == objective]
        losses = torch.cat([F.cross_entropy(model.logits(batch), batch.targets, reduction="none") for batch in mine])
        total = total + len(mine) / len(batches) * losses.mean()
        index = OBJECTIVES.index(objective)
        assert whole["losses"][index].item() == pytest.approx(losses.sum().item(), rel=1e-6)
    total.backward()
    direct = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert_equal(direct, {name: whole[name] for name in direct}, 2e-6)
    norm = torch.stack([value.norm() for value in direct.values()]).norm()
    assert whole["norm"].item() == pytest.approx(norm.item(), rel=1e-6)


@pytest.mark.parametrize("size", [16, 32, 48, 200, 1000])
def test_accumulation_gives_the_same(tiny_dataset: Path, whole: dict[str, torch.Tensor], size: int) -> None:
    assert_equal(whole, gradient(ALONE, tiny_dataset, {"train.micro_batch_tokens": size}))


def test_two_processes_give_the_same(tiny_dataset: Path, whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    first, second = run_processes(2, gradient, tmp_path, tiny_dataset, {})
    assert_equal(first, second, 0.0)
    assert_equal(whole, first)


@pytest.mark.parametrize(("processes", "size"), [(2, 32), (4, 1000)])
def test_processes_with_accumulation_give_the_same(
    tiny_dataset: Path, whole: dict[str, torch.Tensor], tmp_path: Path, processes: int, size: int
) -> None:
    """Cut so that the processes have unlike numbers of micro-batches."""
    for found in run_processes(processes, gradient, tmp_path, tiny_dataset, {"train.micro_batch_tokens": size}):
        assert_equal(whole, found)


def test_an_output_layer_of_its_own_over_processes(tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {"model.tie_embeddings": False}
    alone = gradient(ALONE, tiny_dataset, changes)
    for found in run_processes(2, gradient, tmp_path, tiny_dataset, changes):
        assert_equal(alone, found)


def test_dropout_belongs_to_the_sub_batch_and_not_to_the_process(tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {"model.dropout": 0.3, "model.attention_dropout": 0.2}
    alone = gradient(ALONE, tiny_dataset, changes)
    assert_equal(alone, run_processes(2, gradient, tmp_path, tiny_dataset, changes)[1])
    assert_equal(alone, gradient(ALONE, tiny_dataset, changes), 0.0)


def test_dropout_differs_between_sub_batches_and_parts_of_a_sub_batch(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset, {**CHANGES, "model.dropout": 0.5}), Dataset(tiny_dataset)
    loader = Loader(config, dataset)
    model = LanguageModel(config.model, len(dataset.vocab), 2)
    train_step = TrainStep(
        config, ParallelModel(model), GradientRecorder(model.parameters(), lr=1.0), Precision.fp32, ALONE
    )
    data = loader.make(0, loader.sampler.initial_state())
    losses = []
    for step, key in ((0, (0, 0)), (0, (0, 0)), (0, (1, 0)), (0, (0, 1)), (1, (0, 0))):
        same_batch = replace(data.batches[0], rng_key=key)
        losses.append(train_step(replace(data, step=step, batches=[same_batch]), [1.0, 1.0, 1.0]).losses.sum().item())
    assert losses[0] == losses[1]
    assert len(set(losses)) == 4


@pytest.mark.parametrize("limit", [0.05, 1000.0])
def test_clipping(tiny_dataset: Path, whole: dict[str, torch.Tensor], limit: float) -> None:
    clipped = gradient(ALONE, tiny_dataset, {"optim.clip_grad_norm": limit})
    norm = whole["norm"].item()
    assert norm > 0.05
    assert clipped["norm"].item() == norm  # what is reported is the norm before
    factor = min(1.0, limit / norm)
    for name, value in whole.items():
        if name not in ("losses", "norm"):
            torch.testing.assert_close(clipped[name], value * factor, rtol=1e-4, atol=1e-7)


def test_a_gradient_that_is_no_number_moves_nothing_and_is_named(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset, CHANGES), Dataset(tiny_dataset)
    loader = Loader(config, dataset)
    torch.manual_seed(0)
    model = LanguageModel(config.model, len(dataset.vocab), 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    train_step = TrainStep(config, ParallelModel(model), optimizer, Precision.fp32, ALONE)
    data = loader.make(0, loader.sampler.initial_state())
    monitor = StepMonitor(config, train_step, TrainState(data.sampler_state))
    monitor.collect([(train_step(data, [100.0, 100.0, 100.0]), data)])
    before = [parameter.clone() for parameter in model.parameters()]
    averages = [optimizer.state[parameter]["exp_avg"].clone() for parameter in model.parameters()]
    hook = model.head.bias.register_hook(lambda grad: grad * float("nan"))
    following = loader.make(1, data.sampler_state)
    result = train_step(following, [100.0, 100.0, 100.0])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert all(torch.equal(a, optimizer.state[p]["exp_avg"]) for a, p in zip(averages, model.parameters()))
    with pytest.raises(NumericalError) as caught:
        monitor.collect([(result, following)])
    hook.remove()
    assert caught.value.exit_code == 5
    name, epoch, index = following.sub_batches[0]
    assert f"not finite in step 2, made of {name} epoch {epoch} sub-batch {index}, " in str(caught.value)
    assert "(xlmtrain show-data step=2 shows them): rank 0: the gradient of head.bias (" in str(caught.value)
    assert "optim.lr" in str(caught.value)
    monitor.collect([(train_step(data, [100.0, 100.0, 100.0]), data)])  # and it can go on
