"""Numbers that are not finite, far off, or not the same on all ranks; and the weights of the loss."""

from __future__ import annotations

import math
import random
import re
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tests.support.fault_table import Tries
from tests.support.starts import Forked, finish, ids, settings
from tests.support.tiny import ALONE, run_processes, tiny_config
from tests.support.training import GradientRecorder, checkpoint, records, state, status, train_alone, train_on
from xlmtrain.config.data import OBJECTIVES
from xlmtrain.config.train import OnNonFinite, OnSpike, Precision
from xlmtrain.data.batch import Batch, make_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.sequences import SequenceBatch
from xlmtrain.errors import NumericalError
from xlmtrain.metrics.spikes import SpikeDetector
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import autocast
from xlmtrain.text.vocab import EOS, PAD
from xlmtrain.train.parallel import parallelize
from xlmtrain.train.step import TrainStep

CPU = torch.device("cpu")
FP16 = {
    "train__precision": Precision.fp16,
    "train__initial_loss_scale": 2.0**25,
    "train__loss_scale_window": 4,
    "train__save_every": 1,
    "train__keep_last": 100,
}


@pytest.mark.row(26, quick=1, slow=4, full=10)
def test_nan_on_one_rank(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """In a step's first or second micro-batch, on either rank; the run stops, or leaves the step out."""
    for number in range(tries.count):
        rank, skip, step = number % 2, number % 4 >= 2, 3 + number
        with tries.attempt(f"rank {rank}, step {step}, {'skip' if skip else 'stop'}"):
            after = OnNonFinite.skip if skip else OnNonFinite.stop
            changes = {"train__on_non_finite": after, "evaluate__every": 0, "train__save_every": 100}
            config = settings(tmp_path / f"run{number}", tiny_dataset, 16, **changes)
            place = 2 * (step - 1) + 1 + number % 2  # two sub-batches of the global batch are this rank's
            with Forked(config, 2, fault=f"loss:{place}:{rank}:nan") as start:
                codes = start.wait()
            sub_batches = ids(config.run)[step - 1][0]
            named = ", ".join(f"{name} epoch {epoch} sub-batch {index}" for name, epoch, index in sub_batches)
            assert f"not finite in step {step}, made of {named}" in start.printed(0)
            assert re.search(rf"rank {rank}: the loss was nan", start.printed(0))
            losses = {record["step"]: record["train/loss"] for record in records(config.run) if "train/loss" in record}
            assert all(map(math.isfinite, losses.values()))
            if skip:
                assert codes == [0, 0]
                assert records(config.run)[-2]["train/skipped_steps"] == 1
                weights = load_file(checkpoint(config.run, 16) / "model.safetensors")
                assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())
            else:
                assert codes == [5, 5]
                assert f"not finite in step {step}," in start.printed(1)  # both learned of it in the same step
                assert status(config.run)["status"] == "failed"
                finish(config, 2)
                assert ids(config.run)[15]


@pytest.mark.row(27, quick=2, slow=6, full=12)
def test_overflows_of_fp16(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """From a loss scale that overflows at once: stopped and resumed in the midst of the series, or at its end."""
    whole = settings(tmp_path / "straight", tiny_dataset, 24, **FP16)
    train_alone(whole)
    figures = [record for record in records(whole.run) if "train/loss_scale" in record]
    scales = [figure["train/loss_scale"] for figure in figures]
    skipped = [figure["train/skipped_steps"] for figure in figures]
    assert skipped[-1] >= 2
    for number in range(tries.count - 1):
        stop = number + 1
        with tries.attempt(f"stopped after step {stop}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, 24, **FP16)
            train_alone(config, stop_after=stop)
            assert state(config.run, stop)["scaler"]["scale"] == scales[stop - 1]
            if stop > 1 and skipped[stop - 1] > skipped[stop - 2]:
                assert scales[stop - 1] == scales[stop - 2] / 2
            train_alone(config)
            assert records(config.run) == records(whole.run)
            ours, theirs = (checkpoint(run, 24) / "model.safetensors" for run in (config.run, whole.run))
            assert ours.read_bytes() == theirs.read_bytes()
    with tries.attempt("at the floor"):
        floor = {**FP16, "train__initial_loss_scale": 2.0**40, "train__min_loss_scale": 2.0**37}
        config = settings(tmp_path / "floor", tiny_dataset, 24, **floor)
        with pytest.raises(NumericalError, match=r"in step 4,"):  # 2^40, 2^39, 2^38, 2^37 overflow
            train_alone(config)
        assert checkpoint(config.run, 3).is_dir()
        assert not checkpoint(config.run, 4).exists()


@pytest.mark.row(28, quick=4, slow=12, full=50)
def test_loss_spikes(tries: Tries, tiny_dataset: Path, tmp_path: Path, xlmtrain_log: pytest.LogCaptureFixture) -> None:
    """The loss of one step times 1,000: each is flagged with the ids of its batch. Ten thousand clean ones are not."""
    rng, per_run = random.Random(28), 10
    for run in range(-(-tries.count // per_run)):
        count = min(per_run, tries.count - run * per_run)
        steps = 40 + 12 * count
        at = [40 + 12 * i + rng.randrange(8) for i in range(count)]
        changes = {"evaluate__every": 0, "train__save_every": 1000, "model__dim": 16, "optim__lr": 1e-3}
        config = settings(tmp_path / f"run{run}", tiny_dataset, steps, train__on_spike=OnSpike.skip, **changes)
        faults = ",".join(f"loss:{4 * step + 1}-{4 * step + 4}:0:large" for step in at)
        with Forked(config, 1, fault=faults) as start:
            assert start.wait() == [0]
        flagged = re.findall(r"loss spike: .* in step (\d+), made of (\S+ epoch \d+ sub-batch \d+)", start.printed())
        found = {int(step): sub_batch for step, sub_batch in flagged}
        for step in at:
            with tries.attempt(f"step {step + 1}"):
                name, epoch, index = ids(config.run)[step][0][0]
                assert found[step + 1] == f"{name} epoch {epoch} sub-batch {index}"
        assert found.keys() == {step + 1 for step in at}, "a false alarm"
    noise, window, alarms = np.random.default_rng(28), [], 0
    detector = SpikeDetector(window)
    for loss in 3 + 0.2 * noise.standard_normal(10_000) - np.linspace(0, 1, 10_000):
        limit = detector.limit()
        alarms += limit is not None and loss > limit
        detector.add(float(loss))
    assert alarms <= 1
    tries.figure(f"{alarms} false alarms in 10,000 clean losses")


def odd_batch(rng: np.random.Generator) -> Batch:
    """Rows of delimiters, of padding, of one token, with no word selected, with all selected."""
    rows, width = int(rng.integers(1, 5)), int(rng.integers(1, 13))
    tokens = rng.integers(14, 54, (rows, width))
    for row in range(rows):
        kind = rng.integers(5)
        if kind == 0:
            tokens[row] = PAD
        elif kind == 1:
            tokens[row] = EOS
        elif kind == 2:
            tokens[row, int(rng.integers(width)) :] = PAD
        elif kind == 3:
            tokens[row, 0] = EOS
    lengths = (tokens != PAD).sum(axis=1)
    selected = (rng.random(tokens.shape) < rng.choice([0.0, 0.15, 1.0])) & (tokens != PAD)
    positions = np.broadcast_to(np.arange(width), tokens.shape).copy()
    languages = rng.integers(0, 2, tokens.shape)
    return make_batch("mlm", SequenceBatch(tokens, positions, languages, lengths), tokens, selected, name="odd")


@pytest.mark.row(29, quick=100, slow=1000, full=1000)
def test_batches_with_nothing_in_them(tries: Tries, tiny_dataset: Path) -> None:
    """In fp32, bf16 and fp16 by turns: loss and gradient are finite, the targets counted as they are."""
    config = tiny_config("run", tiny_dataset)
    torch.manual_seed(0)
    model = LanguageModel(config.model, 54, 2)
    rng, empty = np.random.default_rng(29), 0
    for number in range(tries.count):
        precision = (Precision.fp32, Precision.bf16, Precision.fp16)[number % 3]
        with tries.attempt(f"batch {number}, {precision.value}"):
            batch = odd_batch(rng)
            empty += not len(batch.targets)
            with autocast(precision, CPU):
                loss = model(batch)
            loss.backward()
            assert math.isfinite(loss.item())
            assert len(batch.targets) > 0 or loss.item() == 0
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        model.zero_grad()
    tries.figure(f"{empty} without a target")
    assert empty > tries.count // 10


def spoiled(distributed: Distributed, config: Any, rank: int, step: int) -> tuple[int, str]:
    """Train; after ``step`` one weight of ``rank`` is off by 1e-3. The step at which that ended, and what was said."""
    original = TrainStep.__call__

    def call(self: TrainStep, data: Any, targets: list[float]) -> Any:
        result = original(self, data, targets)
        if distributed.rank == rank and data.step + 1 == step:
            with torch.no_grad():
                list(self.model.parameters())[-1].view(-1)[3] += 1e-3
        return result

    with mock.patch.object(TrainStep, "__call__", call):
        try:
            train_on(distributed, config)
        except NumericalError as error:
            found = re.search(r"after step (\d+)", str(error))
            return int(found[1]) if found else -1, str(error)
    return -1, "not found"


@pytest.mark.row(30, slow=2, full=8)
def test_ranks_that_differ(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Of four ranks; compared every four steps."""
    every = 4
    for number in range(tries.count):
        rank, step = 1 + number % 3, 2 + number
        with tries.attempt(f"rank {rank}, step {step}"):
            changes = {"train__replica_check_every": every, "evaluate__every": 0, "train__save_every": 1000}
            config = settings(tmp_path / f"run{number}", tiny_dataset, 20, **changes)
            for found, said in run_processes(4, spoiled, tmp_path, config, rank, step):
                assert step <= found <= step + every
                assert re.findall(r"\n  rank (\d+): (\S+)", said) == [(str(rank), mock.ANY)]


def gradient(distributed: Distributed, data: Path, size: int, step: int) -> list[torch.Tensor]:
    """What the optimizer is given for one global batch of eight sub-batches, computed ``size`` tokens at a time."""
    still = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "optim.clip_grad_norm": 0.0}
    config = tiny_config("run", data, {**still, "train.batch_tokens": 512, "train.micro_batch_tokens": size})
    dataset = Dataset(data)
    loader = Loader(config, dataset, distributed.rank, distributed.world_size)
    torch.manual_seed(0)
    model = LanguageModel(config.model, len(dataset.vocab), 2)
    optimizer = GradientRecorder(model.parameters(), lr=1.0)
    parallel = parallelize(model, config.train, Precision.fp32, distributed)
    train_step = TrainStep(config, parallel, optimizer, Precision.fp32, distributed)
    batch = loader.make(step, loader.sampler.initial_state())
    train_step(batch, distributed.all_reduce_sum(batch.targets))
    return optimizer.seen


def stated(data: Path, step: int) -> list[torch.Tensor]:
    """The same from the definition: each objective's mean over all its targets, times its share of the sub-batches."""
    still = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "train.batch_tokens": 512}
    config, dataset = tiny_config("run", data, still), Dataset(data)
    torch.manual_seed(0)
    model = LanguageModel(config.model, len(dataset.vocab), 2)
    loader = Loader(config, dataset)
    batches = loader.make(step, loader.sampler.initial_state()).batches
    total = torch.zeros(())
    for objective in OBJECTIVES:
        mine = [batch for batch in batches if batch.objective == objective]
        if mine:
            every = [F.cross_entropy(model.logits(batch), batch.targets, reduction="none") for batch in mine]
            total = total + len(mine) / len(batches) * torch.cat(every).mean()
    total.backward()
    return [parameter.grad for parameter in model.parameters()]  # type: ignore[misc]


@pytest.mark.row(31, quick=4, slow=12, full=24)
def test_weights_of_the_loss(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """On one or two ranks, in one to sixteen micro-batches; relative to each parameter's largest gradient."""
    worst = 0.0
    cases = list(product((1, 2), (16, 32, 48, 64, 200, 1000), (0, 3)))
    for ranks, size, step in cases[:: len(cases) // tries.count]:
        with tries.attempt(f"{ranks} ranks, {size} tokens, step {step}"):
            if ranks == 1:
                found = [gradient(ALONE, tiny_dataset, size, step)]
            else:
                found = run_processes(2, gradient, tmp_path, tiny_dataset, size, step)
            for ours in found:
                for a, b in zip(ours, stated(tiny_dataset, step), strict=True):
                    off = ((a - b).abs().max() / b.abs().max()).item()
                    worst = max(worst, off)
                    assert off <= 2e-6
    tries.figure(f"gradients differ by {worst:.0e} at most")
