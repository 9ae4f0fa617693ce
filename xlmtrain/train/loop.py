"""The training loop: steps, and between them figures, evaluation and checkpoints.

It is given everything it works with, and knows neither files of text nor how a loss comes about.
"""

from __future__ import annotations

import logging
import math
import resource
from dataclasses import dataclass, field

import torch

from xlmtrain.config.schema import Config
from xlmtrain.data.loader import Loader, StepData
from xlmtrain.data.sampling import OBJECTIVES
from xlmtrain.evaluate.validator import Validator
from xlmtrain.metrics.flops import flops_per_token, peak_flops
from xlmtrain.metrics.meters import Stopwatch, duration
from xlmtrain.metrics.sinks import Console, MetricsWriter
from xlmtrain.objective import LanguageModel
from xlmtrain.runtime import faults
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.signals import StopRequest
from xlmtrain.train.checkpoint import CheckpointStore
from xlmtrain.train.state import Progress, optimizer_tensors
from xlmtrain.train.step import Stepper, StepResult

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """Why the loop ended: ``done``, or ``preempted`` by ``signal``."""

    status: str
    reason: str
    signal: int | None = None


@dataclass
class TrainingLoop:
    """Trains from ``progress`` on to ``config.train.steps``.

    ``validator``: None where there is no validation text. ``store`` and ``writer``: None on all processes but the
    main one.
    """

    config: Config
    distributed: Distributed
    model: LanguageModel
    optimizer: torch.optim.Optimizer
    stepper: Stepper
    loader: Loader
    validator: Validator | None
    store: CheckpointStore | None
    writer: MetricsWriter | None
    stop: StopRequest
    progress: Progress
    console: Console = field(init=False, default_factory=Console)
    watch: Stopwatch = field(init=False, default_factory=Stopwatch)
    # Steps whose figures nobody has looked at yet, with the draws they were made of.
    pending: list[tuple[StepResult, list[tuple[str, int, int]]]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.saved = self.progress.step

    def run(self) -> Outcome:
        """Train; returns when the steps are done, the metric no longer improves, or a signal came.

        Raises NumericalError if the loss or the gradient is no longer finite.
        """
        self._mark_best()
        try:
            outcome = self._stopped() or self._evaluate_if_due() or self._out_of_patience() or self._train()
        finally:
            self.console.clear()
            if self.writer is not None:
                self.writer.close()
        return outcome or Outcome("done", f"{self.progress.step} steps")

    def _train(self) -> Outcome | None:
        config, progress = self.config.train, self.progress
        self.model.train()
        self.watch.reset()
        for data in self.loader.steps(progress.step, config.steps, progress.cursors):
            self.watch.data_ready()
            faults.reach("step")
            stopping = self._step(data)
            if stopping or progress.step % config.log_every == 0 or progress.step == config.steps:
                self._log()
            outcome = self._preempted() if stopping else self._evaluate_if_due()
            if outcome or progress.step % config.save_every == 0 or progress.step == config.steps:
                self._save()
            if outcome:
                return outcome
            self.watch.resume()
        return None

    def _stopped(self) -> Outcome | None:
        """Whether any process was asked to stop, as all of them agree."""
        return self._preempted() if self.distributed.sum([float(self.stop.signal is not None)])[0] else None

    def _preempted(self) -> Outcome:
        reason = f"signal {self.stop.signal}" if self.stop.signal else "signal to another process"
        return Outcome("preempted", reason, self.stop.signal)

    def _step(self, data: StepData) -> bool:
        """Train on one global batch; whether any process was asked to stop."""
        *targets, tokens, positions, stopping = self.distributed.sum(
            [*data.targets, data.tokens, data.positions, float(self.stop.signal is not None)]
        )
        self.pending.append((self.stepper(data, targets), data.draws))
        self.progress.step = data.step + 1
        self.progress.cursors = data.cursors
        self.progress.tokens += int(tokens)
        if self.distributed.device.type == "cpu":
            self.stepper.check(*self.pending[-1])  # reading a figure costs nothing here, so a bad step is named at once
        self.watch.step_done(tokens, positions, sum(targets))
        return stopping > 0

    def _log(self) -> None:
        """Write the figures of the steps since the last time."""
        for pending in self.pending:
            self.stepper.check(*pending)
        results = [result for result, _ in self.pending]
        if not results:
            return
        self.watch.step_done(0, 0, 0)  # reading the figures waited for the device to finish the steps
        self.pending = []
        losses = self.distributed.sum(torch.stack([result.losses for result in results]).sum(dim=0).tolist())
        targets = [sum(result.targets[i] for result in results) for i in range(len(OBJECTIVES))]
        self.progress.skipped += int(sum(result.skipped.item() for result in results))
        self.progress.seconds += self.watch.seconds
        figures = {"train/loss": sum(losses) / max(sum(targets), 1.0)}
        for objective, loss, count in zip(OBJECTIVES, losses, targets):
            if count:
                figures[f"train/{objective}_loss"] = loss / count
                figures[f"train/{objective}_ppl"] = math.exp(min(loss / count, 700.0))
        norms = [result.grad_norm.item() for result in results if not result.skipped.item()]
        if norms:
            figures["train/grad_norm"] = sum(norms) / len(norms)
        figures |= {
            "train/lr": results[-1].learning_rate,
            "progress/tokens": self.progress.tokens,
            "progress/seconds": self.progress.seconds,
        }
        if self.stepper.scaler.is_enabled():
            figures |= {"train/loss_scale": self.stepper.scaler.get_scale(), "train/skipped": self.progress.skipped}
        figures |= self._speed()
        if self.writer is not None:
            self.writer.scalars(self.progress.step, figures)
            self.console.progress(self._line(figures))
        self.watch.reset()

    def _speed(self) -> dict[str, float]:
        """Tokens per second, the share of the time that went into waiting for data, memory, utilization."""
        watch, device = self.watch, self.distributed.device
        per_second = watch.tokens / max(watch.seconds, 1e-9)
        speed = {
            "speed/tokens_per_second": per_second,
            "speed/data_wait": watch.waiting / max(watch.seconds, 1e-9),
            "speed/unpadded": watch.tokens / max(watch.positions, 1.0),
            "speed/memory_gb": _peak_memory(device) / 1e9,
        }
        peak = peak_flops(device, self.stepper.precision)
        if peak is not None:
            length, scored = self.config.data.sequence_length, watch.targets / max(watch.tokens, 1.0)
            vocab = self.model.encoder.token_embeddings.num_embeddings
            useful = per_second * flops_per_token(self.config.model, vocab, length, scored)
            speed["speed/mfu"] = useful / (peak * self.distributed.world_size)
        return speed

    def _line(self, figures: dict[str, float]) -> str:
        steps, step = self.config.train.steps, self.progress.step
        losses = " ".join(f"{o} {figures[f'train/{o}_loss']:.3f}" for o in OBJECTIVES if f"train/{o}_loss" in figures)
        norm = f"{figures['train/grad_norm']:.2f}" if "train/grad_norm" in figures else "overflow"
        left = self.progress.seconds / max(step, 1) * (steps - step)
        return (
            f"step {step}/{steps} | loss {losses} | lr {figures['train/lr']:.2e} | "
            f"grad {norm} | {figures['speed/tokens_per_second']:,.0f} tokens/s | "
            f"wait {figures['speed/data_wait']:.1%} | ETA {duration(left)}"
        )

    def _evaluate_if_due(self) -> Outcome | None:
        """Evaluate at the first and last step and every so often; an Outcome if the metric has stopped improving."""
        step, config = self.progress.step, self.config.evaluate
        due = step in (0, self.config.train.steps) or (config.every > 0 and step % config.every == 0)
        if self.validator is None or not due or self.progress.evaluated == step:
            return None
        self._log()
        figures = self.validator(self.model, self.stepper.precision, self.distributed)
        self.progress.evaluated = step
        value, rising = figures[config.metric], config.metric.endswith("_acc")
        best = self.progress.best
        improved = best is None or (value > best if rising else value < best)
        if improved:
            self.progress.best, self.progress.best_step, self.progress.without_best = value, step, 0
        else:
            self.progress.without_best += 1
        if self.writer is not None:
            self.writer.scalars(step, figures)
            shown = "  ".join(f"{name.partition('/')[2]} {figure:.2f}" for name, figure in figures.items())
            for name, text in self.validator.samples(self.model, self.stepper.precision, self.distributed).items():
                self.writer.text(step, f"samples/{name}", text)
            self.console.message(f"step {step} | {shown}{'  (best so far)' if improved else ''}")
        if improved and step > 0:
            self._save()
        return self._out_of_patience() or self._stopped()

    def _out_of_patience(self) -> Outcome | None:
        config = self.config.evaluate
        if config.patience and self.progress.without_best >= config.patience:
            return Outcome("done", f"{config.metric} has not improved in {config.patience} evaluations")
        return None

    def _mark_best(self) -> None:
        """Let ``best.json`` say what the progress says; it is behind if a kill came between a save and this."""
        progress = self.progress
        if self.store is not None and progress.best is not None and progress.best_step in self.store.steps():
            self.store.mark_best(progress.best_step, self.config.evaluate.metric, progress.best)

    def _save(self) -> None:
        """Write a checkpoint of the step, once."""
        self._log()
        progress = self.progress
        if self.store is not None:
            if self.saved != progress.step:
                state = {"progress": progress.to_json(), "scaler": self.stepper.scaler.state_dict()}
                moments = optimizer_tensors(self.optimizer, self.model)
                self.store.save(progress.step, self.model.state_dict(), moments, state)
            self._mark_best()
            self.store.prune(progress.step)
        if self.writer is not None:
            self.writer.flush()
        self.saved = progress.step


def _peak_memory(device: torch.device) -> float:
    """Bytes: the most that torch had allocated on a GPU, or that this process had resident."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
