"""Metrics of training steps, written as one record for several steps."""

from __future__ import annotations

import logging
import math
import resource
from dataclasses import dataclass

import torch

from xlmtrain.config.data import OBJECTIVES
from xlmtrain.config.phases import phase_at
from xlmtrain.config.schema import Config
from xlmtrain.data.loader import StepBatches
from xlmtrain.metrics.energy import EnergyMeter, energy_metrics, merge
from xlmtrain.metrics.flops import flops_per_token, peak_flops, skipped_share
from xlmtrain.metrics.loggers import MetricsWriter
from xlmtrain.metrics.timer import StepTimer, duration
from xlmtrain.train.monitor import StepMetrics, StepMonitor
from xlmtrain.train.state import TrainState
from xlmtrain.train.step import StepOutput, TrainStep

log = logging.getLogger(__name__)


@dataclass
class MetricsLog:
    """Collects the outputs of steps and writes their metrics. ``writer``: None on all processes but the main one."""

    train_step: TrainStep
    monitor: StepMonitor
    writer: MetricsWriter | None
    state: TrainState

    def __post_init__(self) -> None:
        self.timer = StepTimer()
        self.energy = EnergyMeter(self.train_step.distributed)
        if self.writer is not None:
            log.info("energy: %s", "; ".join(self.energy.sources))
        # Steps whose outputs are still on the device, and steps that are in no record yet.
        self._on_device: list[tuple[StepOutput, StepBatches]] = []
        self._unwritten: list[StepMetrics] = []

    def add(self, output: StepOutput, data: StepBatches) -> None:
        """Add a step. Raises NumericalError as :meth:`StepMonitor.collect`."""
        self._on_device.append((output, data))
        self.timer.generating += output.generate_seconds
        if self.monitor.reads_every_step:
            self._collect()

    def _collect(self) -> None:
        on_device, self._on_device = self._on_device, []
        self._unwritten += self.monitor.collect(on_device)

    def write(self) -> None:
        """Write a record of the steps since the last one. Collective; waits for the device."""
        self._collect()
        steps, self._unwritten = self._unwritten, []
        if not steps:
            return
        self.timer.step_done(0, 0, 0)  # collecting waited for the device to finish the steps
        self.state.seconds += self.timer.seconds
        metrics = training_metrics(steps, self.state, self.train_step.scaler)
        phases, last = self.train_step.phases, self.state.step - 1
        phase = phase_at(phases, last)
        data = phase.settings.data
        for name in data.loss_weight.keys() & data.weights.keys():
            metrics[f"train/{name}_loss_weight"] = phase.loss_factor(name, last)
        metrics |= throughput_metrics(self.timer, phase.settings, self.train_step)
        if self.writer is not None:
            self.writer.scalars(self.state.step, metrics, phase.name)
            self.writer.console.progress(progress_line(metrics, self.state, phases[-1].span.end, phase.name))
        self.timer.reset()

    def write_energy(self) -> None:
        """Add the energy since the last call to the state, and write a record of the sums. Collective."""
        self.state.energy = merge([*self.state.energy, *self.energy.collect()])
        if self.writer is not None:
            self.writer.scalars(self.state.step, energy_metrics(self.state.energy))

    def flush(self) -> None:
        """Hand all metrics to the system, before a checkpoint refers to them."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Flush and close."""
        if self.writer is not None:
            self.writer.close()


def training_metrics(steps: list[StepMetrics], state: TrainState, scaler: torch.amp.GradScaler) -> dict[str, float]:
    """Return the means over ``steps`` of loss per target and gradient norm, the learning rate, and the progress.

    A loss that is not finite is in no mean; its step counts as skipped.
    """
    metrics: dict[str, float] = {}
    finite = [step for step in steps if math.isfinite(step.loss)]
    losses = [sum(step.losses[i] for step in finite) for i in range(len(OBJECTIVES))]
    targets = [sum(step.targets[i] for step in finite) for i in range(len(OBJECTIVES))]
    if finite:
        metrics["train/loss"] = sum(losses) / max(sum(targets), 1.0)
    for objective, loss, count in zip(OBJECTIVES, losses, targets):
        if count:
            metrics[f"train/{objective}_loss"] = loss / count
            metrics[f"train/{objective}_ppl"] = math.exp(min(loss / count, 700.0))
    norms = [step.grad_norm for step in steps if not step.skipped]
    if norms:
        metrics["train/grad_norm"] = sum(norms) / len(norms)
    metrics["train/lr"] = steps[-1].learning_rate
    metrics |= {"progress/tokens": state.tokens, "progress/seconds": state.seconds}
    if scaler.is_enabled():
        metrics["train/loss_scale"] = scaler.get_scale()
    if scaler.is_enabled() or state.skipped:
        metrics["train/skipped_steps"] = state.skipped
    if state.spikes:
        metrics["train/spikes"] = state.spikes
    return metrics


def throughput_metrics(timer: StepTimer, config: Config, train_step: TrainStep) -> dict[str, float]:
    """Return tokens per second, shares of time (waiting for data, generating), token density, memory, utilization.

    Without elapsed time the speed is 0. Memory: the peak that torch allocated on a GPU, or resident on a CPU.
    """
    device, world_size = train_step.distributed.device, train_step.distributed.world_size
    if device.type in ("cuda", "xpu"):
        memory = float(torch.get_device_module(device).max_memory_allocated(device))
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    per_second = timer.tokens / timer.seconds if timer.seconds > 0 else 0.0
    speed = {
        "speed/tokens_per_second": per_second,
        "speed/data_wait_share": timer.waiting / max(timer.seconds, 1e-9),
        "speed/token_density": timer.tokens / max(timer.positions, 1.0),
        "speed/peak_memory_gb": memory / 1e9,
    }
    if "bt" in config.data.weights:
        speed["speed/generate_share"] = timer.generating / max(timer.seconds, 1e-9)
    peak = peak_flops(device, train_step.precision)
    if peak is not None:
        length, scored = config.data.sequence_length, timer.targets / max(timer.tokens, 1.0)
        vocab_size, translated = train_step.model.vocab_size, config.data.seq2seq_share
        skipped = skipped_share(scored, translated)
        useful = per_second * flops_per_token(config.model, vocab_size, length, scored, translated, skipped)
        speed["speed/mfu"] = useful / (peak * world_size)
    return speed


def progress_line(metrics: dict[str, float], state: TrainState, steps: int, phase: str = "") -> str:
    """Return one line for the terminal on the progress of a run of ``steps`` steps, in ``phase``."""
    losses = " ".join(f"{o} {metrics[f'train/{o}_loss']:.3f}" for o in OBJECTIVES if f"train/{o}_loss" in metrics)
    norm = f"{metrics['train/grad_norm']:.2f}" if "train/grad_norm" in metrics else "skipped"
    share = metrics.get("speed/generate_share")
    generating = "" if share is None else f" | generate {share:.1%}"
    left = state.seconds / max(state.step, 1) * (steps - state.step)
    return (
        f"step {state.step}/{steps} | ETA {duration(left)} | {phase + ' | ' if phase else ''}loss {losses} | "
        f"lr {metrics['train/lr']:.2e} | "
        f"grad {norm} | {metrics['speed/tokens_per_second']:,.0f} tokens/s | "
        f"wait {metrics['speed/data_wait_share']:.1%}{generating}"
    )
