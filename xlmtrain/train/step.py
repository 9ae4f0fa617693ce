"""One optimizer step: micro-batches in, weights moved, figures out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from xlmtrain.config.schema import Config, FusedAdam, Precision
from xlmtrain.data.loader import GlobalBatchShard
from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.optim.schedule import learning_rate
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint_value
from xlmtrain.runtime.precision import autocast, make_scaler
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.parallel import Parallel, full_scalar


@dataclass
class StepOutput:
    """What a step measured. Tensors are on the device, so that reading them can wait until they are logged.

    ``losses``: (objectives,) this process's summed loss; ``targets``: (objectives,) the global batch's targets;
    ``grad_norm``: () before clipping; ``skipped``: () 1 if the weights did not move, as a gradient was not finite or
    the loss above the limit.
    """

    step: int
    losses: torch.Tensor
    targets: list[float]
    grad_norm: torch.Tensor
    skipped: torch.Tensor
    learning_rate: float


class TrainStep:
    """Computes the gradient of a global batch and steps the optimizer.

    The loss is, summed over objectives, the objective's share of the draws times its mean loss per target over the
    whole global batch: over all micro-batches of all processes, not a mean of their means.
    """

    def __init__(
        self,
        config: Config,
        parallel: Parallel,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        distributed: Distributed,
    ) -> None:
        self._config, self._parallel, self._optimizer, self._distributed = config, parallel, optimizer, distributed
        self.precision = precision
        self._parameters = [p for p in parallel.module.parameters() if p.requires_grad]
        self.scaler = make_scaler(config.train, precision, distributed.device)
        self.limit: float | None = None
        """A step with more loss per target than this leaves the weights as they are; None: none does."""

    def __call__(self, data: GlobalBatchShard, targets: list[float]) -> StepOutput:
        """Train on ``data``, this process's part of a global batch with ``targets`` (objectives,) in all."""
        rate = learning_rate(self._config.optim, data.step, self._config.train.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        losses = self._backward(data, targets)
        self.scaler.unscale_(self._optimizer)
        clip = self._config.optim.clip_grad_norm
        norm = full_scalar(nn.utils.clip_grad_norm_(self._parameters, clip if clip > 0 else float("inf")))
        skipped = (~torch.isfinite(norm)).to(torch.float32)
        if self.limit is not None:
            loss = sum(self._distributed.all_reduce_sum(losses.tolist())) / max(sum(targets), 1.0)
            skipped.fill_(max(float(skipped), float(loss > self.limit)))
        self._move_weights(skipped)
        self._optimizer.zero_grad()
        return StepOutput(data.step, losses, targets, norm, skipped, rate)

    def _backward(self, data: GlobalBatchShard, targets: list[float]) -> torch.Tensor:
        """Accumulate the gradient over the micro-batches; reduce it over the processes with the last one."""
        device, world_size = self._distributed.device, self._distributed.world_size
        losses = torch.zeros(len(OBJECTIVES), device=device)
        missing = self._parallel.missing(len(data.batches))
        for number, batch in enumerate(data.batches, 1):
            objective = OBJECTIVES.index(batch.objective)
            weight = data.shares[batch.objective] / max(targets[objective], 1.0)
            torch.manual_seed(torch_seed(self._config.seed, "dropout", data.step, *batch.key))
            with self._parallel.micro_batch(batch, last=number == len(data.batches)):
                with autocast(self.precision, device):
                    loss = failpoint_value("loss", self._parallel.module(batch.to(device)))
                # Data parallelism averages over the processes; the loss is a sum over them.
                self.scaler.scale(loss * (weight * world_size)).backward()
            losses[objective] += loss.detach()
        self._parallel.run_empty(missing)
        return losses

    def _move_weights(self, skipped: torch.Tensor) -> None:
        """Step the optimizer unless ``skipped``; the host does not wait to know."""
        if self.precision is Precision.fp16:
            if self.limit is None or not skipped.item():
                self.scaler.step(self._optimizer)
            self.scaler.update()
        elif self._config.optim.fused is FusedAdam.torch:
            # torch's fused kernels leave weights and moments alone where this flag is set; GradScaler uses it too.
            self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not skipped.item():
            self._optimizer.step()
