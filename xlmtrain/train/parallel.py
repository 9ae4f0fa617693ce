"""Training over several processes: DistributedDataParallel (DDP), or weights sharded by torch's FSDP2.

:func:`parallelize` prepares a model and returns what a training step needs of it; nothing else in the training loop
knows which of the two it is. Files have full tensors only: :func:`full_tensor` and :func:`shard_like` convert. A
sharded tensor is a DTensor: each process holds some rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from xlmtrain.config.train import Precision, ReduceDtype, Sharding, TrainConfig
from xlmtrain.data.batch import Batch, dummy_batch
from xlmtrain.errors import ConfigError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import HALF
from xlmtrain.train.comm_hook import TiedEmbeddingCommHook, compress_hook


class ParallelModel:
    """A model in training, here on a single process. ``wrapped_model``: the model or its wrapper, for training."""

    lockstep = False
    """True if every forward pass takes all processes."""

    def __init__(self, model: nn.Module, wrapped_model: nn.Module | None = None) -> None:
        self.model, self.wrapped_model = model, model if wrapped_model is None else wrapped_model

    def pad(self, batches: list[Batch]) -> list[Batch]:
        """Return the micro-batches, with empty ones appended where all processes need as many. Collective."""
        return batches

    def micro_batch(self, batch: Batch, last: bool) -> AbstractContextManager[None]:
        """Return the context for forward and backward pass of a micro-batch; ``last``: of the step.

        The gradients are averaged over the processes when the context of the last one is left. ``batch``: on the host.
        """
        return nullcontext()

    def evaluation(self) -> AbstractContextManager[None]:
        """Return the context in which other methods of ``model`` than its forward pass may be called. Collective."""
        return nullcontext()


class DdpModel(ParallelModel):
    """A model, on ``device``, that every process has a copy of.

    ``dtype``: in which gradients are sent; None: their own. ``hook``: what sends them instead of DDP, in its own dtype.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        dtype: torch.dtype | None = None,
        hook: TiedEmbeddingCommHook | None = None,
    ) -> None:
        ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)
        super().__init__(model, ddp)
        self._no_sync, self._hook = ddp.no_sync, hook
        # Through lambdas, as torch compares a hook's annotations, which are text here, with its own types.
        if hook is not None:
            ddp.register_comm_hook(hook, lambda hook, bucket: hook.hook(bucket))
        elif dtype is not None:
            ddp.register_comm_hook(dtype, lambda dtype, bucket: compress_hook(dtype, bucket))
        # DDP rearranges its buckets when its second batch begins, and sums over more than two processes depend on the
        # arrangement: without two batches now, a resumed run's first step would differ in the last bits.
        for _ in range(2):
            with self.micro_batch(dummy_batch(), last=True):
                ddp(dummy_batch().to(device)).backward()
        ddp.zero_grad(set_to_none=True)

    def micro_batch(self, batch: Batch, last: bool) -> AbstractContextManager[None]:
        """Return the context; see :class:`ParallelModel`."""
        if not last:
            return self._no_sync()
        return nullcontext() if self._hook is None else _hooked(self._hook, batch)


@contextmanager
def _hooked(hook: TiedEmbeddingCommHook, batch: Batch) -> Iterator[None]:
    hook.embed(batch.tokens)
    yield
    hook.finish()


class FsdpModel(ParallelModel):
    """A model whose weights are sharded over the processes.

    Every forward and backward pass takes all processes, to all-gather weights and reduce-scatter gradients. So all have
    to run as many micro-batches.
    """

    lockstep = True

    def __init__(self, model: nn.Module, distributed: Distributed) -> None:
        super().__init__(model)
        self._distributed = distributed

    def pad(self, batches: list[Batch]) -> list[Batch]:
        """Append batches without targets up to the largest number of a process; their gradient is zero. Collective."""
        most = max(map(int, self._distributed.all_gather_text(str(len(batches)))))
        return batches + [dummy_batch(targets=0)] * (most - len(batches))

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Keep the embeddings and the output layer gathered; a block is gathered when it is called."""
        with torch.no_grad():  # a forward pass leaves them gathered, and FSDP2 must begin with one of the whole model
            self.model(dummy_batch(targets=0).to(self._distributed.device))
        try:
            yield
        finally:
            assert isinstance(self.model, FSDPModule)
            self.model.reshard()


def compile_blocks(model: LanguageModel) -> None:
    """Compile the blocks of ``model`` in place, but not the encoder's last one where a language model is trained.

    That one computes the targets alone. With several objectives its graphs and those of the other blocks would be more
    than the eight that torch makes of one function.
    """
    left_out = [model.encoder.blocks[-1]] if any(weight.requires_grad for weight in model.head.parameters()) else []
    for block in model.blocks:
        if block not in left_out:
            block.compile()


def parallelize(
    model: LanguageModel, config: TrainConfig, precision: Precision, distributed: Distributed
) -> ParallelModel:
    """Put ``model`` on the device of this process, and wrap or shard it if there are several processes. Collective.

    Call it before the optimizer is made, as sharding replaces the parameters. Raises ConfigError if gradients are to be
    compressed and the precision is fp32, or if the hosts have different numbers of processes.
    """
    half = config.reduce_dtype is ReduceDtype.half
    if half and precision not in HALF:
        raise ConfigError(
            f"train.reduce_dtype=half: with train.precision={precision.value} there is no smaller format to "
            "send gradients in; take bf16 or fp16, or leave it out"
        )
    if distributed.world_size > 1 and config.sharding is not Sharding.none:
        shard(model, config, precision, distributed)
        return FsdpModel(model, distributed)
    model.to(distributed.device)
    if distributed.world_size == 1:
        return ParallelModel(model)
    dtype = HALF[precision] if half else None
    overlap = config.overlap_tied_embedding and model.head.weight is None
    return DdpModel(model, distributed.device, dtype, TiedEmbeddingCommHook(model, dtype) if overlap else None)


def shard(model: LanguageModel, config: TrainConfig, precision: Precision, distributed: Distributed) -> None:
    """Replace the weights by this process's shards of them, on its device.

    The weights of a block are all-gathered when it is needed, and freed after it. The embeddings and the output layer
    stay gathered during a micro-batch. Weights are gathered in the format of the matrix products; the shards themselves
    and the sums of gradients stay fp32. Raises ConfigError if the hosts have different numbers of processes.
    """
    world_size, device = distributed.world_size, distributed.device.type
    if config.sharding is Sharding.full:
        mesh = init_device_mesh(device, (world_size,))
    else:
        local = local_world_size(world_size)
        mesh = init_device_mesh(device, (world_size // local, local), mesh_dim_names=("hosts", "processes"))
    half = HALF.get(precision)
    policy = MixedPrecisionPolicy(
        param_dtype=half,
        reduce_dtype=half if config.reduce_dtype is ReduceDtype.half else torch.float32,
        cast_forward_inputs=False,
    )
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def local_world_size(world_size: int) -> int:
    """Return the number of processes on this host, from torchrun. Raises ConfigError if hosts have different ones."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    if world_size % local:
        raise ConfigError(
            f"train.sharding=hybrid: {world_size} processes, {local} on this host; start as many on every host"
        )
    return local


def replica_groups(sharding: Sharding, world_size: int) -> list[list[int]]:
    """Return the ranks that hold the same weights, group by group."""
    if sharding is Sharding.none:
        return [list(range(world_size))]
    count = world_size if sharding is Sharding.full else local_world_size(world_size)
    return [list(range(first, world_size, count)) for first in range(count)]


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor``, all-gathered or reduced over the processes if it is sharded. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this process's shard of ``full``, laid out as ``like``; all of it, on its device, if that is unsharded."""
    if isinstance(like, DTensor) and full.shape == like.shape:
        return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return full.to(like.device)
