"""Settings of a run's size, device, checkpoints and limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, SHARE_BELOW_ONE, ranged


class Precision(str, Enum):
    """Number format of matrix products; weights and optimizer state are always fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Device(str, Enum):
    """Device to compute on: ``auto`` takes the first of cuda, xpu, mps and cpu that torch can use."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    xpu = "xpu"
    mps = "mps"


class Sharding(str, Enum):
    """Weights on each process: all of them; a shard of all processes; or a shard of the processes of its host."""

    none = "none"
    full = "full"
    hybrid = "hybrid"


class ReduceDtype(str, Enum):
    """Number format of gradients in the all-reduce: fp32, or that of the matrix products (bf16 or fp16)."""

    fp32 = "fp32"
    half = "half"


class OnNonFinite(str, Enum):
    """Response to a non-finite gradient: end the run, or skip the step, at most ten in a row."""

    stop = "stop"
    skip = "skip"


class OnSpike(str, Enum):
    """Response to a loss spike: log it, or also skip the step."""

    log = "log"
    skip = "skip"


class Requeue(str, Enum):
    """Restart of a job that a signal ended."""

    never = "never"
    slurm = "slurm"


@dataclass
class TrainConfig:
    """Length of the run, batch, precision, checkpoints, and what to do about faults."""

    steps: int = ranged(100000, ABOVE_ZERO)
    """Optimizer steps of the run; with ``phases``, of each phase without a length."""

    batch_tokens: int = ranged(65536, ABOVE_ZERO)
    """Global batch in tokens, padding included, over all processes and accumulated micro-batches; a multiple of
    ``data.sub_batch_tokens``."""

    micro_batch_tokens: int = ranged(0, NOT_NEGATIVE)
    """Tokens of a micro-batch, the part of the batch that a device computes in one pass; the gradient is accumulated.
    0: one sub-batch. Lower it if memory is short; the result stays the same, except for the dropout masks."""

    label_smoothing: float = ranged(0.0, SHARE_BELOW_ONE)
    """Share of each target of translation and denoising that is spread over the vocabulary (Szegedy et al. 2016); 0.1
    is usual. Validation is without it."""

    precision: Precision = Precision.auto
    """``auto``: bf16 on GPUs and CPUs that have it (CPUs with AVX512-BF16 or AMX), fp16 with dynamic loss scaling on
    older GPUs (Volta), fp32 on other CPUs."""

    device: Device = Device.auto
    """``auto``: CUDA where there is one."""

    compile: bool = False
    """Compile the blocks with torch.compile, all but the encoder's last one; it takes a minute at the start. For GPUs;
    no gain on CPUs."""

    sharding: Sharding = Sharding.none
    """Split weights, gradients and optimizer state across processes (FSDP2), for models that do not fit on one device.
    ``full``: across all processes. ``hybrid``: across those of each host, with less traffic between hosts. Checkpoints
    do not depend on it."""

    reduce_dtype: ReduceDtype = ReduceDtype.fp32
    """Number format in which gradients are summed over the processes. ``half``: bf16 or fp16, as ``train.precision``
    says, which halves the traffic."""

    overlap_tied_embedding: bool = False
    """With ``model.tie_embeddings`` and without sharding: send the gradient of the embeddings early in the backward
    pass, but for the rows of the tokens looked up, instead of all of it at the end. Experimental: measured over gloo
    only, never over NCCL."""

    initial_loss_scale: float = ranged(65536.0, ABOVE_ZERO)
    """First loss scale of fp16; halved on overflow, doubled after ``loss_scale_window`` steps without one."""

    loss_scale_window: int = ranged(2000, ABOVE_ZERO)
    """Steps without overflow after which the loss scale of fp16 is doubled."""

    min_loss_scale: float = ranged(1.0, ABOVE_ZERO)
    """Training stops when an overflow would lower the loss scale of fp16 below this."""

    log_every: int = ranged(10, ABOVE_ZERO)
    """Steps between records of metrics."""

    save_every: int = ranged(1000, ABOVE_ZERO)
    """Steps between checkpoints."""

    keep_last: int = ranged(2, ABOVE_ZERO)
    """Number of last checkpoints to keep, besides the best one."""

    keep_every: int = ranged(0, NOT_NEGATIVE)
    """Also keep the checkpoints of steps that are a multiple of this; 0: none."""

    on_non_finite: OnNonFinite = OnNonFinite.stop
    """Response to a loss or gradient that is not finite: end the run, or skip the step, at most ten in a row. With fp16
    an overflow lowers the loss scale instead."""

    on_spike: OnSpike = OnSpike.log
    """Response to a loss that is more than 6 standard deviations above the mean of the 128 steps before it: log it, or
    also skip the step. ``skip`` makes every step wait for the device."""

    replica_check_every: int = ranged(1000, NOT_NEGATIVE)
    """Steps between checks that all processes have the same weights; every checkpoint is preceded by one, too.
    0: no checks."""

    hang_timeout: float = ranged(600.0, ABOVE_ZERO)
    """Seconds without progress after which a process prints its stack and ends with exit code 6. It must exceed the
    longest step, evaluation batch or reading of a checkpoint."""

    requeue: Requeue = Requeue.never
    """``slurm``: a job that a signal ended is queued again with ``scontrol requeue``."""

    overwrite: bool = False
    """Delete the run in this directory and start from step 0, instead of resuming it. Give it only once: with it, the
    same command starts over again."""

    def problems(self) -> Iterator[str]:
        if self.save_every > 0 and self.keep_every % self.save_every:
            yield f"keep_every: {self.keep_every} is no multiple of train.save_every={self.save_every}"
        if self.sharding is not Sharding.none and self.overlap_tied_embedding:
            yield f"overlap_tied_embedding: has no effect with train.sharding={self.sharding.value}"
