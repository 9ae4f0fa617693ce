"""Learning-rate schedules as pure functions of the step: no state to save."""

from __future__ import annotations

import math

from xlmtrain.config.optim import OptimConfig, Schedule
from xlmtrain.config.phases import Phase


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """Return the learning rate of optimizer step ``step``, counted from 0.

    Linear from ``warmup_init_lr`` to ``lr`` over ``warmup_steps``; then constant, lr * sqrt(warmup_steps / step)
    (Vaswani et al. 2017, section 5.3), or linear or a half cosine to ``min_lr``, which is kept after that.
    """
    warmup = config.warmup_steps
    if step < warmup:
        return config.warmup_init_lr + step * (config.lr - config.warmup_init_lr) / warmup
    if config.schedule is Schedule.constant:
        return config.lr
    if config.schedule is Schedule.inverse_sqrt:
        return config.lr * math.sqrt(max(warmup, 1) / max(step, 1))
    decay = config.decay_steps or max(total_steps - warmup, 1)
    done = min((step - warmup) / decay, 1.0)
    left = 1.0 - done if config.schedule is Schedule.linear else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.min_lr + (config.lr - config.min_lr) * left


def phase_learning_rate(phase: Phase, step: int) -> float:
    """Return the learning rate of ``step`` of the run, which is in ``phase``."""
    return learning_rate(phase.settings.optim, step - phase.schedule.start, phase.schedule.steps)
