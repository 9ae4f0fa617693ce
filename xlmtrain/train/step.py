"""One optimizer step: micro-batches in, weights moved, figures out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xlmtrain.config.schema import Config, FusedAdam, Precision, ReduceDtype, Sharding
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

    The loss is, summed over objectives, the objective's share of the sub-batches times its mean loss per target in the
    whole global batch: over all micro-batches of all processes, not a mean of their means. Raises ConfigError if
    gradients are to be compressed and the precision is fp32.
    """

    def __init__(
        self,
        config: Config,
        model: LanguageModel,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        distributed: Distributed,
    ) -> None:
        self._config, self._optimizer, self._distributed = config, optimizer, distributed
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
            self._settle_buckets(self._reduction)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.scaler = make_scaler(config.train, precision, distributed.device)
        self.limit: float | None = None
        """A step with more loss per target than this leaves the weights as they are; None: none does."""

    def _settle_buckets(self, reduction: Reduction) -> None:
        """Run a batch through the module, twice, and forget its gradient.

        DistributedDataParallel arranges its buckets anew when its second batch begins, and sums of more than two
        processes depend on the arrangement: without this a resumed run's first step would differ in the last bits.
        The processes agree on it, too, and would do so in different micro-batches.
        """
        batch = _one_token()
        for _ in range(2):
            self._module(batch.to(self._distributed.device), reduction.look_up(batch.tokens)).backward()
            reduction.finish()
        self._module.zero_grad(set_to_none=True)

    def __call__(self, data: GlobalBatchShard, targets: list[float]) -> StepOutput:
        """Train on ``data``, this process's part of a global batch with ``targets`` (objectives,) in all."""
        rate = learning_rate(self._config.optim, data.step, self._config.train.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        losses = self._backward(data, targets)
        self.scaler.unscale_(self._optimizer)
        clip = self._config.optim.clip_grad_norm
        norm = whole_number(nn.utils.clip_grad_norm_(self._parameters, clip if clip > 0 else float("inf")))
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
        """Micro-batches that this process has fewer than another one, where each of them takes all processes: to put
        shared weights together and to add their gradients up."""
        if not self._sharded:
            return 0
        return max(int(count) for count in self._distributed.all_gather_text(str(batches))) - batches

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


def _one_token() -> Batch:
    """The smallest batch there is."""
    one = torch.ones(1, 1, dtype=torch.int64)
    return Batch("mlm", one, 0 * one, 0 * one, None, torch.zeros(1, dtype=torch.int64), one[0])
