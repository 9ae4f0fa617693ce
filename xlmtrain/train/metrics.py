"""The figures of a line of metrics, from what its steps measured."""

from __future__ import annotations

import math
import resource

import torch

from xlmtrain.config.schema import Config
from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.metrics.flops import flops_per_token, peak_flops
from xlmtrain.metrics.timer import StepTimer, duration
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.train.monitor import StepMetrics
from xlmtrain.train.state import Progress
from xlmtrain.train.step import TrainStep


def training_metrics(steps: list[StepMetrics], progress: Progress, stepper: TrainStep) -> dict[str, float]:
    """Loss per target, learning rate, gradient, and how far the run is.

    A loss that is not a number is in no mean; its step is among the skipped.
    """
    figures: dict[str, float] = {}
    finite = [step for step in steps if math.isfinite(sum(step.losses))]
    losses = [sum(step.losses[i] for step in finite) for i in range(len(OBJECTIVES))]
    targets = [sum(step.targets[i] for step in finite) for i in range(len(OBJECTIVES))]
    if finite:
        figures["train/loss"] = sum(losses) / max(sum(targets), 1.0)
    for objective, loss, count in zip(OBJECTIVES, losses, targets):
        if count:
            figures[f"train/{objective}_loss"] = loss / count
            figures[f"train/{objective}_ppl"] = math.exp(min(loss / count, 700.0))
    norms = [step.grad_norm for step in steps if not step.skipped]
    if norms:
        figures["train/grad_norm"] = sum(norms) / len(norms)
    figures |= {
        "train/lr": steps[-1].learning_rate,
        "progress/tokens": progress.tokens,
        "progress/seconds": progress.seconds,
    }
    if stepper.scaler.is_enabled():
        figures["train/loss_scale"] = stepper.scaler.get_scale()
    if stepper.scaler.is_enabled() or progress.skipped:
        figures["train/skipped_steps"] = progress.skipped
    if progress.spikes:
        figures["train/spikes"] = progress.spikes
    return figures


def throughput_metrics(
    watch: StepTimer, config: Config, model: LanguageModel, stepper: TrainStep, device: torch.device, world_size: int
) -> dict[str, float]:
    """Tokens per second, the share of the time that went into waiting for data, memory, utilization.

    A clock that stood still says nothing about speed: 0.
    """
    per_second = watch.tokens / watch.seconds if watch.seconds > 0 else 0.0
    speed = {
        "speed/tokens_per_second": per_second,
        "speed/data_wait_share": watch.waiting / max(watch.seconds, 1e-9),
        "speed/token_density": watch.tokens / max(watch.positions, 1.0),
        "speed/peak_memory_gb": _peak_memory(device) / 1e9,
    }
    peak = peak_flops(device, stepper.precision)
    if peak is not None:
        length, scored = config.data.sequence_length, watch.targets / max(watch.tokens, 1.0)
        vocab = model.encoder.token_embeddings.num_embeddings
        useful = per_second * flops_per_token(config.model, vocab, length, scored)
        speed["speed/mfu"] = useful / (peak * world_size)
    return speed


def progress_line(figures: dict[str, float], progress: Progress, steps: int) -> str:
    """How far a run of ``steps`` steps is, for people."""
    step = progress.step
    losses = " ".join(f"{o} {figures[f'train/{o}_loss']:.3f}" for o in OBJECTIVES if f"train/{o}_loss" in figures)
    norm = f"{figures['train/grad_norm']:.2f}" if "train/grad_norm" in figures else "skipped"
    left = progress.seconds / max(step, 1) * (steps - step)
    return (
        f"step {step}/{steps} | loss {losses} | lr {figures['train/lr']:.2e} | "
        f"grad {norm} | {figures['speed/tokens_per_second']:,.0f} tokens/s | "
        f"wait {figures['speed/data_wait_share']:.1%} | ETA {duration(left)}"
    )


def _peak_memory(device: torch.device) -> float:
    """Bytes: the most that torch had allocated on a GPU, or that this process had resident."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
