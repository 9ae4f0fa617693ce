"""Training monitor: non-finite gradients, loss spikes, replica divergence."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass

import torch

from xlmtrain.config.schema import Config, OnNonFinite, OnSpike, Precision
from xlmtrain.data.loader import GlobalBatchShard
from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.errors import NumericalError
from xlmtrain.metrics.spikes import SpikeDetector
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.nonfinite import first_non_finite
from xlmtrain.train.parallel import local_tensor, replica_groups, unsharded_copy
from xlmtrain.train.state import TrainState
from xlmtrain.train.step import StepOutput, TrainStep

log = logging.getLogger(__name__)

MOST_SKIPS = 10
"""Consecutive steps with a non-finite gradient that ``train.on_non_finite=skip`` tolerates."""


@dataclass
class StepMetrics:
    """Metrics of one step, the same on all processes.

    ``losses``, ``targets``: (objectives,) summed over the global batch. ``grad_norm`` is before clipping. ``skipped``:
    the weights were not updated.
    """

    step: int
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

    def __init__(
        self, config: Config, model: LanguageModel, step: TrainStep, distributed: Distributed, state: TrainState
    ) -> None:
        self._config, self._model, self._step = config, model, step
        self._distributed, self._state = distributed, state
        self._spikes, self._consecutive_skips = SpikeDetector(state.losses), 0
        self.reads_every_step = distributed.device.type == "cpu" or config.train.on_spike is OnSpike.skip
        """True where metrics must be read after every step, or where that costs nothing (on a CPU)."""
        self._set_limit()

    def collect(self, steps: list[tuple[StepOutput, GlobalBatchShard]]) -> list[StepMetrics]:
        """Return the metrics of ``steps``, in order, and check them. Collective; waits for the device.

        Raises NumericalError if a gradient was not finite, unless the settings skip such steps.
        """
        if not steps:
            return []
        results = [result for result, _ in steps]
        local = torch.stack([result.losses for result in results]).double().flatten().tolist()
        losses = self._distributed.all_reduce_sum(local)
        norms = torch.stack([result.grad_norm for result in results]).tolist()
        skipped = torch.stack([result.skipped for result in results]).tolist()
        count = len(OBJECTIVES)
        collected = []
        for i, (result, data) in enumerate(steps):
            here = slice(i * count, (i + 1) * count)
            one = StepMetrics(
                result.step + 1, losses[here], result.targets, norms[i], bool(skipped[i]), result.learning_rate
            )
            self._check(one, data, local[here])
            collected.append(one)
        return collected

    def _check(self, one: StepMetrics, data: GlobalBatchShard, local: list[float]) -> None:
        self._state.skipped += one.skipped
        if not math.isfinite(one.grad_norm):
            self._consecutive_skips += 1
            self._not_finite(data, local)
            return
        self._consecutive_skips = 0
        limit = self._spikes.limit()
        if limit is not None and one.loss > limit:
            self._state.spikes += 1
            if self._distributed.is_main:
                log.warning(
                    "loss spike: %.4f is %.1f standard deviations above the last steps' in %s%s",
                    one.loss,
                    self._spikes.sigmas(one.loss),
                    where(data),
                    "; the step is skipped" if one.skipped else "",
                )
        self._spikes.add(one.loss)
        self._set_limit()

    def _set_limit(self) -> None:
        if self._config.train.on_spike is OnSpike.skip:
            self._step.set_loss_limit(self._spikes.limit())

    def _not_finite(self, data: GlobalBatchShard, local: list[float]) -> None:
        """Skip the step or raise NumericalError. Collective: all processes have the same gradient."""
        train, scaler = self._config.train, self._step.scaler
        if self._step.precision is Precision.fp16:
            if scaler.get_scale() < train.min_loss_scale:
                raise NumericalError(
                    f"fp16 overflows at every loss scale down to train.min_loss_scale={train.min_loss_scale} in "
                    f"{where(data)}; lower optim.lr or take train.precision=fp32"
                )
            return  # dynamic loss scaling expects it: the scale is lowered
        found = f"the gradient is not finite in {where(data)}: {self._locate(data, local)}"
        if train.on_non_finite is OnNonFinite.skip and self._consecutive_skips <= MOST_SKIPS:
            if self._distributed.is_main:
                log.warning("%s; the step is skipped", found)
            return
        times = f", as in the {MOST_SKIPS} steps before it" if train.on_non_finite is OnNonFinite.skip else ""
        raise NumericalError(
            f"{found}{times}. That step was skipped, and the same command resumes from the last checkpoint. The usual "
            "fix is a lower optim.lr, a longer optim.warmup_steps or a smaller optim.clip_grad_norm"
        )

    def _locate(self, data: GlobalBatchShard, local: list[float]) -> str:
        """Return the ranks with a non-finite number, and its place in the network. Collective."""
        loss = sum(local)
        mine = first_non_finite(unsharded_copy(self._model), data, self._step.precision, self._config.seed)
        if mine is None and not math.isfinite(loss):
            mine = f"the loss was {loss}, but is finite when computed again"
        ranks = [(rank, text) for rank, text in enumerate(self._distributed.all_gather_text(mine or "")) if text]
        if not ranks:
            return "on every rank all is finite when computed again; the gradients' sum overflowed, or a device erred"
        return "; ".join(f"rank {rank}: {text}" for rank, text in ranks)

    def check_replicas(self) -> None:
        """Raise NumericalError if replicas of the weights differ in any bit. Collective."""
        groups = replica_groups(self._config.train.sharding, self._distributed.world_size)
        if len(groups[0]) == 1:
            return
        names = [name for name, _ in self._model.named_parameters()]
        sums = torch.stack(
            [_checksum(local_tensor(parameter.detach())) for parameter in self._model.parameters()]
        ).tolist()
        found = [json.loads(text) for text in self._distributed.all_gather_text(json.dumps(sums))]
        for ranks in groups:
            self._assert_equal({rank: found[rank] for rank in ranks}, names)

    def _assert_equal(self, found: dict[int, list[int]], names: list[str]) -> None:
        """Raise NumericalError if the checksums of the ranks differ; ``names`` are the weights' names."""
        every = list(found.values())
        usual = max(every, key=every.count)  # the first of several that are as frequent
        lines = [
            f"rank {rank}: {names[next(i for i, (a, b) in enumerate(zip(other, usual)) if a != b)]}"
            for rank, other in found.items()
            if other != usual
        ]
        if lines:
            raise NumericalError(
                f"after step {self._state.step} the weights are not the same on all processes; these differ from "
                f"{'most' if every.count(usual) > 1 else f'rank {min(found)}'}, first in\n  "
                + "\n  ".join(lines)
                + "\n"
                "a device or its memory is faulty, or one process runs other code; the same command resumes from the "
                "last checkpoint"
            )


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Return () int64, the sum of the bit patterns as integers: one changed bit changes it."""
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(bits).sum(dtype=torch.int64)


def where(data: GlobalBatchShard) -> str:
    """Return the step, from 1, and the sub-batches in it, for messages."""
    return (
        f"step {data.step + 1}, made of "
        + ", ".join(f"{name} epoch {epoch} sub-batch {index}" for name, epoch, index in data.sub_batches)
        + f" (tools/show_data.py step={data.step} shows them)"
    )
