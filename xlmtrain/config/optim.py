"""Settings of the optimizer, the learning rate and the averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, SHARE_BELOW_ONE, ranged


class Schedule(str, Enum):
    """Learning rate after its linear warm-up."""

    constant = "constant"
    inverse_sqrt = "inverse_sqrt"
    linear = "linear"
    cosine = "cosine"


class OptimizerName(str, Enum):
    """``adamw``; or ``muon``: Muon for the blocks' matrices, AdamW for all else."""

    adamw = "adamw"
    muon = "muon"


class FusedAdam(str, Enum):
    """Library of the fused Adam kernel; both give the same step."""

    torch = "torch"
    apex = "apex"


@dataclass
class OptimConfig:
    """Adam with decoupled weight decay, or Muon with it, and the learning rate as a function of the step."""

    name: OptimizerName = OptimizerName.adamw
    """``muon``: torch's Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for embeddings, output layer,
    norms and biases. Its updates are as large as AdamW's (Liu et al. 2025), so ``lr`` and ``weight_decay`` are for
    both."""

    momentum: float = ranged(0.95, SHARE_BELOW_ONE)
    """Muon's decay rate of the running sum of the gradient, with Nesterov's correction."""

    lr: float = ranged(1e-4, ABOVE_ZERO)
    """Peak learning rate."""

    schedule: Schedule = Schedule.inverse_sqrt
    """Learning rate after the warm-up: constant; ``inverse_sqrt`` falls towards 0; ``linear`` and ``cosine`` fall to
    ``min_lr``."""

    warmup_steps: int = ranged(4000, NOT_NEGATIVE)
    """Steps of linear warm-up."""

    warmup_init_lr: float = ranged(1e-7, NOT_NEGATIVE)
    """Learning rate of the first step of the warm-up."""

    min_lr: float = ranged(0.0, NOT_NEGATIVE)
    """Learning rate at the end of the linear and cosine schedules."""

    decay_steps: int = ranged(0, NOT_NEGATIVE)
    """Steps of the linear and cosine schedules from the peak to ``min_lr``; 0: until the last step, or the phase that
    begins another schedule."""

    beta1: float = ranged(0.9, SHARE_BELOW_ONE)
    """Decay rate of Adam's running mean of the gradient."""

    beta2: float = ranged(0.999, SHARE_BELOW_ONE)
    """Decay rate of Adam's running mean of the squared gradient."""

    eps: float = ranged(1e-8, ABOVE_ZERO)
    """Added to Adam's denominator, after its bias correction (as in torch; the original XLM added it before, which
    matters only in the first steps)."""

    weight_decay: float = ranged(0.0, NOT_NEGATIVE)
    """Decoupled weight decay of the blocks' matrices; biases, norms, embeddings and output layer have none."""

    clip_grad_norm: float = ranged(5.0, NOT_NEGATIVE)
    """Largest norm of the gradient; a larger one is scaled down to it. 0: no clipping."""

    fused: FusedAdam = FusedAdam.torch
    """``torch``: torch's fused AdamW. ``apex``: FusedAdam of NVIDIA apex (CUDA only)."""

    def problems(self) -> Iterator[str]:
        if self.name is OptimizerName.muon and self.fused is FusedAdam.apex:
            yield "fused: apex does not work with optim.name=muon; set optim.fused=torch"


class AverageKind(str, Enum):
    """Average of the weights: none; ``ema``: exponential; ``uniform``: all steps alike."""

    none = "none"
    ema = "ema"
    uniform = "uniform"


@dataclass
class AverageConfig:
    """An average of the weights, kept beside those that are trained. It is validated as ``average/...``, saved in the
    checkpoints, and exported with ``checkpoint=average``."""

    kind: AverageKind = AverageKind.none
    """``ema``: exponential moving average. ``uniform``: the mean over all steps after ``start``. Either takes as much
    memory as the weights."""

    decay: float = ranged(0.999, SHARE_BELOW_ONE)
    """Share of the EMA that stays at each step; 0.999 averages about the last 1,000 steps."""

    start: int = ranged(0, NOT_NEGATIVE)
    """Steps before the first one that is averaged."""
