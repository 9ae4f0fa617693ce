"""One optimizer step: from micro-batches to updated weights and step outputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xlmtrain.config.schema import Config, FusedAdam, OptimConfig, Precision, ReduceDtype, Sharding
from xlmtrain.data.batch import Batch
from xlmtrain.data.loader import GlobalBatchShard
from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.errors import ConfigError
from xlmtrain.objective import LanguageModel
from xlmtrain.optim.schedule import learning_rate
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint_value
from xlmtrain.runtime.precision import HALF, autocast, make_scaler
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.reduction import Reduction
from xlmtrain.train.sharding import whole_number


@dataclass
class StepOutput:
    """Step outputs, left on the device so that logging, not the step, synchronises.

    ``losses``: (objectives,) this process's summed loss; ``targets``: (objectives,) targets in the global batch;
    ``grad_norm``: () before clipping; ``skipped``: () 1 if the weights were not updated, because the gradient was not
    finite or the loss was above the limit.
    """

    step: int
    losses: torch.Tensor
    targets: list[float]
    grad_norm: torch.Tensor
    skipped: torch.Tensor
    learning_rate: float


@dataclass
class OptimizerStep:
    """One optimizer step: learning rate, gradient, clipping, update. The gradient comes from a given function.

    ``steps``: length of the schedule. ``limit``: loss per target; None is no limit. A step whose loss is above it, or
    whose gradient is not finite, leaves weights and optimizer state unchanged.
    """

    config: OptimConfig
    steps: int
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    distributed: Distributed
    limit: float | None = None

    def __call__(self, step: int, targets: list[float], backward: Callable[[], torch.Tensor]) -> StepOutput:
        """Take step ``step``, from 0. ``backward`` accumulates the scaled gradient and returns the summed losses."""
        rate = learning_rate(self.config, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = backward()
        self.scaler.unscale_(self.optimizer)
        clip = self.config.clip_grad_norm
        norm = whole_number(nn.utils.clip_grad_norm_(self.parameters, clip if clip > 0 else float("inf")))
        skipped = (~torch.isfinite(norm)).to(torch.float32)
        if self.limit is not None:
            loss = sum(self.distributed.all_reduce_sum(losses.tolist())) / max(sum(targets), 1.0)
            skipped.fill_(max(float(skipped), float(loss > self.limit)))
        self._update(skipped)
        self.optimizer.zero_grad()
        return StepOutput(step, losses, targets, norm, skipped, rate)

    def _update(self, skipped: torch.Tensor) -> None:
        """Step the optimizer unless ``skipped``; the host does not wait to know."""
        if self.scaler.is_enabled():
            if self.limit is None or not skipped.item():
                self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.config.fused is FusedAdam.torch:
            # torch's fused kernels skip the update where this flag is set; GradScaler uses it too.
            self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skipped.item():
            self.optimizer.step()


class TrainStep:
    """Compute the gradient of a global batch and step the optimizer.

    The loss is the sum over objectives of the objective's share of the sub-batches times its mean loss per target. The
    mean is over the whole global batch, that is all micro-batches of all processes, not a mean of their means. Raises
    ConfigError if ``train.reduce_dtype`` is half and the precision is fp32.
    """

    def __init__(
        self,
        config: Config,
        model: LanguageModel,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        distributed: Distributed,
    ) -> None:
        self._config, self._distributed = config, distributed
        self.precision = precision
        self._module: nn.Module = model
        train = config.train
        if train.reduce_dtype is ReduceDtype.half and precision not in HALF:
            raise ConfigError(
                f"train.reduce_dtype=half: with train.precision={precision.value} there is no smaller format to "
                "send gradients in; take bf16 or fp16, or leave it out"
            )
        self._reduction: Reduction | None = None
        self._sharded = train.sharding is not Sharding.none and distributed.world_size > 1
        if distributed.world_size > 1 and not self._sharded:
            self._module = DistributedDataParallel(model, gradient_as_bucket_view=True)
            self._reduction = Reduction(model, HALF[precision] if train.reduce_dtype is ReduceDtype.half else None)
            # Through a lambda, as torch compares a hook's annotations, which are text here, with its own types.
            self._module.register_comm_hook(self._reduction, lambda reduction, bucket: reduction.reduce(bucket))
            self._warm_up_ddp_buckets(self._reduction)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.scaler = make_scaler(config.train, precision, distributed.device)
        self._optimizer_step = OptimizerStep(
            config.optim, config.train.steps, self._parameters, optimizer, self.scaler, distributed
        )

    def _warm_up_ddp_buckets(self, reduction: Reduction) -> None:
        """Run a batch through the module twice and drop its gradient.

        DistributedDataParallel rebuilds its buckets at the start of its second batch, and sums over more than two
        processes depend on the buckets: without this the first step of a resumed run would differ in the last bits.
        The rebuild is also a collective, which the processes would reach in different micro-batches.
        """
        batch = _one_token()
        for _ in range(2):
            self._module(batch.to(self._distributed.device), reduction.look_up(batch.tokens)).backward()
            reduction.finish()
        self._module.zero_grad(set_to_none=True)

    def __call__(self, data: GlobalBatchShard, targets: list[float]) -> StepOutput:
        """Train on ``data``, this process's part of a global batch with ``targets`` (objectives,) in total."""
        return self._optimizer_step(data.step, targets, partial(self._backward, data, targets))

    @property
    def limit(self) -> float | None:
        """Loss per target above which a step leaves the weights unchanged; None: no limit."""
        return self._optimizer_step.limit

    @limit.setter
    def limit(self, value: float | None) -> None:
        self._optimizer_step.limit = value

    def _backward(self, data: GlobalBatchShard, targets: list[float]) -> torch.Tensor:
        """Accumulate the gradient over the micro-batches; reduce it over the processes with the last one."""
        device, world_size = self._distributed.device, self._distributed.world_size
        losses = torch.zeros(len(OBJECTIVES), device=device)
        missing = self._missing(len(data.batches))
        for number, batch in enumerate(data.batches):
            objective = OBJECTIVES.index(batch.objective)
            weight = data.shares[batch.objective] / max(targets[objective], 1.0)
            torch.manual_seed(torch_seed(self._config.seed, "dropout", data.step, *batch.key))
            last = number + 1 == len(data.batches)
            reduction = self._reduction if last else None
            wait = self._reduction is not None and not last
            with self._module.no_sync() if wait else nullcontext():  # type: ignore[operator]
                embedded = reduction.look_up(batch.tokens) if reduction is not None else None
                with autocast(self.precision, device):
                    loss = failpoint_value("loss", self._module(batch.to(device), embedded))
                # Data parallelism averages over the processes; the loss is a sum over them.
                self.scaler.scale(loss * (weight * world_size)).backward()
            if reduction is not None:
                reduction.finish()
            losses[objective] += loss.detach()
        for _ in range(missing):
            (self._module(_one_token().to(device)) * 0.0).backward()
        return losses

    def _missing(self, batches: int) -> int:
        """Return by how many micro-batches another process has more than this one, if the model is sharded.

        Each of them is a collective then: all-gather of the weights, reduce-scatter of the gradients.
        """
        if not self._sharded:
            return 0
        return max(int(count) for count in self._distributed.all_gather_text(str(batches))) - batches


def _one_token() -> Batch:
    """Return the smallest possible batch."""
    one = torch.ones(1, 1, dtype=torch.int64)
    return Batch("mlm", one, 0 * one, 0 * one, None, torch.zeros(1, dtype=torch.int64), one[0])
