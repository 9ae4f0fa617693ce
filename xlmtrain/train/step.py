"""One optimizer step: from micro-batches to updated weights and step outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from xlmtrain.config.schema import OBJECTIVES, Config, FusedAdam, OptimConfig, Precision
from xlmtrain.data.loader import StepBatches
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.schedule import learning_rate
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint_value
from xlmtrain.runtime.precision import autocast, make_scaler
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.parallel import ParallelModel, full_tensor


@dataclass
class StepOutput:
    """Step outputs, left on the device so that logging, not the step, synchronises.

    ``losses``: (objectives,) this process's summed loss; ``targets``: (objectives,) targets in the global batch;
    ``grad_norm``: () before clipping; ``skipped``: () 1 if the weights were not updated, because the gradient was not
    finite or the loss was above the limit.
    """

    losses: torch.Tensor
    targets: list[float]
    grad_norm: torch.Tensor
    skipped: torch.Tensor
    learning_rate: float


@dataclass
class OptimizerStep:
    """A model with its optimizer and loss scale. :meth:`run` is one step: learning rate, gradient, clipping, update.

    ``steps``: length of the schedule. ``loss_limit``: loss per target; None is no limit. A step whose loss is above it,
    or whose gradient is not finite, leaves weights and optimizer state unchanged.
    """

    optim: OptimConfig
    steps: int
    parallel: ParallelModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    distributed: Distributed
    loss_limit: float | None = None

    def __post_init__(self) -> None:
        self.model = self.parallel.model
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def run(self, step: int, targets: list[float], backward: Callable[[], torch.Tensor]) -> StepOutput:
        """Run step ``step``, from 0. ``backward`` accumulates the scaled gradient and returns the summed losses."""
        rate = learning_rate(self.optim, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = backward()
        self.scaler.unscale_(self.optimizer)
        norm = full_tensor(nn.utils.clip_grad_norm_(self._trained, self.optim.clip_grad_norm or float("inf")))
        skipped = (~torch.isfinite(norm)).to(torch.float32)
        if self.loss_limit is not None:
            loss = sum(self.distributed.all_reduce_sum(losses.tolist())) / max(sum(targets), 1.0)
            skipped.fill_(max(float(skipped), float(loss > self.loss_limit)))
        self._update(skipped)
        self.optimizer.zero_grad()
        return StepOutput(losses, targets, norm, skipped, rate)

    def _update(self, skipped: torch.Tensor) -> None:
        """Step the optimizer unless ``skipped``; the host does not wait to know."""
        if self.scaler.is_enabled():
            if self.loss_limit is None or not skipped.item():
                self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.optim.fused is FusedAdam.torch:
            # torch's fused kernels skip the update where this flag is set; GradScaler uses it too.
            self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skipped.item():
            self.optimizer.step()


class TrainStep(OptimizerStep):
    """Compute the gradient of a global batch and step the optimizer.

    loss = sum over objectives of share x (summed loss / targets). The share is the objective's fraction of the
    sub-batches. Both sums are over the global batch, all micro-batches of all processes: no mean of means.
    """

    model: LanguageModel

    def __init__(
        self,
        config: Config,
        parallel: ParallelModel,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        distributed: Distributed,
    ) -> None:
        scaler = make_scaler(config.train, precision, distributed.device)
        super().__init__(config.optim, config.train.steps, parallel, optimizer, scaler, precision, distributed)
        self._seed = config.seed

    def __call__(self, data: StepBatches, targets: list[float]) -> StepOutput:
        """Train on ``data``, this process's part of a global batch with ``targets`` (objectives,) in total."""
        return self.run(data.step, targets, partial(self._backward, data, targets))

    def _backward(self, data: StepBatches, targets: list[float]) -> torch.Tensor:
        """Accumulate the gradient over the micro-batches; reduce it over the processes with the last one."""
        device, world_size = self.distributed.device, self.distributed.world_size
        losses = torch.zeros(len(OBJECTIVES), device=device)
        batches = self.parallel.pad(data.batches)
        for number, batch in enumerate(batches, 1):
            objective = OBJECTIVES.index(batch.objective)
            weight = data.shares[batch.objective] / max(targets[objective], 1.0)
            torch.manual_seed(torch_seed(self._seed, "dropout", data.step, *batch.rng_key))
            with self.parallel.micro_batch(batch, last=number == len(batches)):
                with autocast(self.precision, device):
                    loss = failpoint_value("loss", self.parallel.wrapped_model(batch.to(device)))
                # Data parallelism averages over the processes; the loss is a sum over them.
                self.scaler.scale(loss * (weight * world_size)).backward()
            losses[objective] += loss.detach()
        return losses
