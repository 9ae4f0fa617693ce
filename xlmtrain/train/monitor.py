"""Keeping an eye on the numbers of training: not finite, far off, or not the same on all processes."""

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
from xlmtrain.objective import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.nonfinite import first_non_finite
from xlmtrain.train.sharding import local, replicas, whole_model
from xlmtrain.train.state import Progress
from xlmtrain.train.step import StepOutput, TrainStep

log = logging.getLogger(__name__)

MOST_SKIPS = 10
"""Steps in a row whose gradient is not finite that ``train.on_non_finite=skip`` puts up with."""


@dataclass
class StepMetrics:
    """What a step measured, the same on all processes.

    ``losses``, ``targets``: (objectives,) summed over the global batch. ``grad_norm`` before clipping. ``skipped``:
    the weights did not move.
    """

    step: int
    losses: list[float]
    targets: list[float]
    grad_norm: float
    skipped: bool
    learning_rate: float

    @property
    def loss(self) -> float:
        """Per target."""
        return sum(self.losses) / max(sum(self.targets), 1.0)


class StepMonitor:
    """Reads the figures of steps and judges them. What it finds it names: step, sub-batches, rank and module."""

    def __init__(
        self, config: Config, model: LanguageModel, stepper: TrainStep, distributed: Distributed, progress: Progress
    ) -> None:
        self._config, self._model, self._stepper = config, model, stepper
        self._distributed, self._progress = distributed, progress
        self._spikes, self._in_a_row = SpikeDetector(progress.losses), 0
        self.at_once = distributed.device.type == "cpu" or config.train.on_spike is OnSpike.skip
        """Whether figures are to be read after every step: where it costs nothing, or has to be."""
        self._set_limit()

    def read(self, steps: list[tuple[StepOutput, GlobalBatchShard]]) -> list[StepMetrics]:
        """The figures of steps, in their order; waits for the device. Every process calls it with the same steps.

        Raises NumericalError if a gradient was not finite and that is not to be passed over.
        """
        if not steps:
            return []
        results = [result for result, _ in steps]
        local = torch.stack([result.losses for result in results]).double().flatten().tolist()
        losses = self._distributed.all_reduce_sum(local)
        norms = torch.stack([result.grad_norm for result in results]).tolist()
        skipped = torch.stack([result.skipped for result in results]).tolist()
        count = len(OBJECTIVES)
        read = []
        for i, (result, data) in enumerate(steps):
            here = slice(i * count, (i + 1) * count)
            one = StepMetrics(
                result.step + 1, losses[here], result.targets, norms[i], bool(skipped[i]), result.learning_rate
            )
            self._judge(one, data, local[here])
            read.append(one)
        return read

    def _judge(self, one: StepMetrics, data: GlobalBatchShard, local: list[float]) -> None:
        self._progress.skipped += one.skipped
        if not math.isfinite(one.grad_norm):
            self._in_a_row += 1
            self._not_finite(data, local)
            return
        self._in_a_row = 0
        limit = self._spikes.limit()
        if limit is not None and one.loss > limit:
            self._progress.spikes += 1
            if self._distributed.is_main:
                log.warning(
                    "loss spike: %.4f is %.1f standard deviations above the last steps' in %s%s",
                    one.loss,
                    self._spikes.sigmas(one.loss),
                    where(data),
                    "; the weights were left as they were" if one.skipped else "",
                )
        self._spikes.add(one.loss)
        self._set_limit()

    def _set_limit(self) -> None:
        if self._config.train.on_spike is OnSpike.skip:
            self._stepper.limit = self._spikes.limit()

    def _not_finite(self, data: GlobalBatchShard, local: list[float]) -> None:
        """Every process comes here in the same step, as the gradient they share is not finite."""
        train, scaler = self._config.train, self._stepper.scaler
        if self._stepper.precision is Precision.fp16:
            if scaler.get_scale() < train.min_loss_scale:
                raise NumericalError(
                    f"fp16 overflows at every loss scale down to train.min_loss_scale={train.min_loss_scale} in "
                    f"{where(data)}; lower optim.lr or take train.precision=fp32"
                )
            return  # that is how the loss scale finds its level
        found = f"the gradient is not finite in {where(data)}: {self._culprits(data, local)}"
        if train.on_non_finite is OnNonFinite.skip and self._in_a_row <= MOST_SKIPS:
            if self._distributed.is_main:
                log.warning("%s; the weights were left as they were", found)
            return
        times = f", as in the {MOST_SKIPS} steps before it" if train.on_non_finite is OnNonFinite.skip else ""
        raise NumericalError(
            f"{found}{times}. That step did not move the weights, and the same command goes on from the last "
            "checkpoint. A lower optim.lr, a longer optim.warmup_steps or a smaller optim.clip_grad_norm is the usual "
            "cure"
        )

    def _culprits(self, data: GlobalBatchShard, local: list[float]) -> str:
        """Which ranks, and where in the network."""
        loss = sum(local)
        mine = first_non_finite(whole_model(self._model), data, self._stepper.precision, self._config.seed)
        if mine is None and not math.isfinite(loss):
            mine = f"the loss was {loss}, but is finite when computed again"
        ranks = [(rank, text) for rank, text in enumerate(self._distributed.all_gather_text(mine or "")) if text]
        if not ranks:
            return "on every rank all is finite when computed again; the gradients' sum overflowed, or a device erred"
        return "; ".join(f"rank {rank}: {text}" for rank, text in ranks)

    def compare(self) -> None:
        """Raise NumericalError if the processes do not have the same weights, to the last bit."""
        groups = replicas(self._config.train.sharding, self._distributed.world_size)
        if len(groups[0]) == 1:
            return
        names = [name for name, _ in self._model.named_parameters()]
        sums = torch.stack([_checksum(local(parameter.detach())) for parameter in self._model.parameters()]).tolist()
        found = [json.loads(text) for text in self._distributed.all_gather_text(json.dumps(sums))]
        for ranks in groups:
            self._same({rank: found[rank] for rank in ranks}, names)

    def _same(self, found: dict[int, list[int]], names: list[str]) -> None:
        """Raise NumericalError if the ranks' checksums, of the weights ``names``, differ."""
        every = list(found.values())
        usual = max(every, key=every.count)  # the first of several that are as frequent
        lines = [
            f"rank {rank}: {names[next(i for i, (a, b) in enumerate(zip(other, usual)) if a != b)]}"
            for rank, other in found.items()
            if other != usual
        ]
        if lines:
            raise NumericalError(
                f"after step {self._progress.step} the weights are not the same on all processes; these differ from "
                f"{'most' if every.count(usual) > 1 else f'rank {min(found)}'}, first in\n  "
                + "\n  ".join(lines)
                + "\n"
                "a device or its memory errs, or one process runs other code; the same command goes on from the last "
                "checkpoint"
            )


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """() int64: the sum of the numbers' bits as integers; one bit that differs changes it, their order does not."""
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(bits).sum(dtype=torch.int64)


def where(data: GlobalBatchShard) -> str:
    """The step, from 1, and what its batch was made of."""
    return (
        f"step {data.step + 1}, made of "
        + ", ".join(f"{name} epoch {epoch} sub-batch {index}" for name, epoch, index in data.sub_batches)
        + f" (tools/show_data.py step={data.step} shows them)"
    )
