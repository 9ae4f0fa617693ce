"""Training monitor: non-finite gradients, loss spikes, replica divergence."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from xlmtrain.config.schema import Config
from xlmtrain.config.train import OnNonFinite, OnSpike, Precision
from xlmtrain.data.loader import StepBatches
from xlmtrain.errors import NumericalError
from xlmtrain.metrics.spikes import SpikeDetector
from xlmtrain.runtime.device import seed_device
from xlmtrain.runtime.precision import autocast
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.parallel import ParallelModel, replica_groups
from xlmtrain.train.state import TrainState
from xlmtrain.train.step import StepOutput, TrainStep

log = logging.getLogger(__name__)

MAX_CONSECUTIVE_SKIPS = 10
"""Consecutive steps with a non-finite gradient that ``train.on_non_finite=skip`` tolerates."""


@dataclass
class StepMetrics:
    """Metrics of one step, the same on all processes, as in StepOutput; the losses are those of the global batch."""

    losses: list[float]
    targets: list[float]
    grad_norm: float
    skipped: bool
    learning_rate: float

    @property
    def loss(self) -> float:
        """Loss per target."""
        return sum(self.losses) / max(sum(self.targets), 1.0)


class StepMonitor:
    """Collects the metrics of steps and checks them. Its messages name step, sub-batches, rank and module."""

    def __init__(self, config: Config, step: TrainStep, state: TrainState) -> None:
        self._config, self._step, self._state, self._distributed = config, step, state, step.distributed
        self._spikes, self._consecutive_skips = SpikeDetector(state.losses), 0
        self._borders = {phase.span.start for phase in step.phases} - {0}
        self.reads_every_step = self._distributed.device.type == "cpu" or config.train.on_spike is OnSpike.skip
        """True where metrics must be read after every step, or where that costs nothing (on a CPU)."""
        self._set_limit(state.step)

    def collect(self, steps: list[tuple[StepOutput, StepBatches]]) -> list[StepMetrics]:
        """Return the metrics of ``steps``, in order, and check them. Collective; waits for the device.

        Raises NumericalError if a gradient was not finite, unless the settings skip such steps.
        """
        if not steps:
            return []
        outputs = [output for output, _ in steps]
        local = torch.stack([output.losses for output in outputs]).cpu().double()  # (steps, objectives)
        losses = torch.tensor(self._distributed.all_reduce_sum(local.flatten().tolist()), dtype=torch.float64)
        norms = torch.stack([output.grad_norm for output in outputs]).tolist()
        skipped = torch.stack([output.skipped for output in outputs]).tolist()
        collected = []
        for i, (every, own) in enumerate(zip(losses.view(local.shape).tolist(), local.tolist())):
            output, data = steps[i]
            metrics = StepMetrics(every, output.targets, norms[i], bool(skipped[i]), output.learning_rate)
            self._check(metrics, data, own)
            collected.append(metrics)
        return collected

    def _check(self, metrics: StepMetrics, data: StepBatches, local: list[float]) -> None:
        self._state.skipped += metrics.skipped
        if not math.isfinite(metrics.grad_norm):
            self._consecutive_skips += 1
            self._not_finite(data, local)
            return
        self._consecutive_skips = 0
        if data.step in self._borders:  # losses of another phase are not comparable
            self._state.losses.clear()
        limit = self._spikes.limit()
        if limit is not None and metrics.loss > limit:
            self._state.spikes += 1
            height = f"{self._spikes.sigmas(metrics.loss):.1f} standard deviations above the last steps'"
            skipped = "; the step is skipped" if metrics.skipped else ""
            self._warn(f"loss spike: {metrics.loss:.4f} is {height} in {where(data)}{skipped}")
        self._spikes.add(metrics.loss)
        self._set_limit(data.step + 1)

    def _set_limit(self, step: int) -> None:
        """Set the limit for the loss of ``step``, the next one."""
        if self._config.train.on_spike is OnSpike.skip:
            self._step.loss_limit = None if step in self._borders else self._spikes.limit()

    def _warn(self, message: str) -> None:
        if self._distributed.is_main:
            log.warning("%s", message)

    def _not_finite(self, data: StepBatches, local: list[float]) -> None:
        """Skip the step or raise NumericalError. Collective: all processes have the same gradient."""
        train = self._config.train
        if self._step.precision is Precision.fp16:
            if self._step.scaler.get_scale() < train.min_loss_scale:
                raise NumericalError(
                    f"fp16 overflows at every loss scale down to train.min_loss_scale={train.min_loss_scale} in "
                    f"{where(data)}; lower optim.lr or take train.precision=fp32"
                )
            return  # dynamic loss scaling expects it: the scale is lowered
        found = f"the gradient is not finite in {where(data)}: {self._locate(data, local)}"
        if train.on_non_finite is OnNonFinite.skip:
            if self._consecutive_skips <= MAX_CONSECUTIVE_SKIPS:
                self._warn(f"{found}; the step is skipped")
                return
            found += f", as in the {MAX_CONSECUTIVE_SKIPS} steps before it"
        raise NumericalError(
            f"{found}. That step was skipped, and the same command resumes from the last checkpoint. The usual "
            "fix is a lower optim.lr, a longer optim.warmup_steps or a smaller optim.clip_grad_norm"
        )

    def _locate(self, data: StepBatches, local: list[float]) -> str:
        """Return the ranks with a non-finite number, and its place in the network. Collective."""
        loss = sum(local)
        mine = first_non_finite(self._step, data, self._config.seed)
        if mine is None and not math.isfinite(loss):
            mine = f"the loss was {loss}, but is finite when computed again"
        ranks = [f"rank {rank}: {at}" for rank, at in enumerate(self._distributed.all_gather_text(mine or "")) if at]
        if not ranks:
            return "on every rank all is finite when computed again; the gradients' sum overflowed, or a device erred"
        return "; ".join(ranks)

    def check_replicas(self) -> None:
        """Raise NumericalError if replicas of the weights differ in any bit. Collective."""
        groups = replica_groups(self._config.train.sharding, self._distributed.world_size)
        if len(groups[0]) == 1:
            return
        names, weights = zip(*self._step.model.named_parameters())
        sums = torch.stack([_checksum(weight.detach()) for weight in weights]).tolist()
        found = [json.loads(text) for text in self._distributed.all_gather_text(json.dumps(sums))]
        for ranks in groups:
            every = [found[rank] for rank in ranks]
            usual = max(every, key=every.count)  # the first of several that are as frequent
            lines = [
                f"\n  rank {rank}: {next(name for name, a, b in zip(names, found[rank], usual) if a != b)}"
                for rank in ranks
                if found[rank] != usual
            ]
            if lines:
                raise NumericalError(
                    f"after step {self._state.step} the weights are not the same on all processes; these differ from "
                    f"{'most' if every.count(usual) > 1 else f'rank {ranks[0]}'}, first in{''.join(lines)}\n"
                    "a device or its memory is faulty, or one process runs other code; the same command resumes from "
                    "the last checkpoint"
                )


def _checksum(weight: torch.Tensor) -> torch.Tensor:
    """Return () int64, the sum of the bit patterns of this process's part: one changed bit changes it."""
    local = weight.to_local() if isinstance(weight, DTensor) else weight
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[local.element_size()]
    return local.contiguous().view(bits).sum(dtype=torch.int64)


@torch.compiler.set_stance("force_eager")  # hooks do not reach into what is compiled
def first_non_finite(step: TrainStep, data: StepBatches, seed: int) -> str | None:
    """Return the first module output or gradient that is not finite, or None if all numbers of this process are.

    Recomputes the step's batches with the current weights and the step's dropout. Collective if weights are sharded;
    the gradients of weights are then those summed over the processes.
    """
    parallel, precision = step.parallel, step.precision
    model: nn.Module = parallel.model
    found: list[str] = []

    def check(place: str, tensor: torch.Tensor) -> None:
        if not torch.isfinite(tensor).all():
            found.append(place)

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                check(f"the output of {name}", output)
                if output.requires_grad:
                    output.register_hook(partial(check, f"the gradient at the output of {name}"))

        return hook

    device, summed = next(model.parameters()).device, "summed " * parallel.lockstep
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        for batch in step.micro_batches(data):
            before = len(found)
            seed_device(torch_seed(seed, "dropout", data.step, *batch.rng_key), device)
            with autocast(precision, device):
                loss = model(batch.to(device))
            check("the output of head", loss)  # which returns only the loss
            for name, gradient in zip(weights, _gradients(parallel, loss.sum(), list(weights.values()))):
                if gradient is not None:
                    check(f"the {summed}gradient of {name}", gradient)
            found[before:] = [f"{place} ({batch.name})" for place in found[before:]]
            if found and not parallel.lockstep:
                break
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else None


def _gradients(
    parallel: ParallelModel, loss: torch.Tensor, weights: list[nn.Parameter]
) -> Sequence[torch.Tensor | None]:
    """Return this process's part of the gradient of each weight; ``.grad``, empty between two steps, stays so."""
    if not parallel.lockstep:
        return torch.autograd.grad(loss, weights, allow_unused=True)
    loss.backward()
    gradients = [weight.grad.to_local() if isinstance(weight.grad, DTensor) else weight.grad for weight in weights]
    parallel.model.zero_grad()
    return gradients


def where(data: StepBatches) -> str:
    """Return the step, from 1, and the sub-batches in it, for messages."""
    sub_batches = ", ".join(f"{name} epoch {epoch} sub-batch {index}" for name, epoch, index in data.sub_batches)
    step = data.step + 1
    return f"step {step}, made of {sub_batches} (xlmtrain show-data step={step} shows them)"
