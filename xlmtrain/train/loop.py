"""The training loop: steps, and between them figures, evaluation and checkpoints.

It is given everything it works with, and knows neither files of text nor how a loss comes about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from xlmtrain.config.schema import Config
from xlmtrain.data.disk_array import data_error
from xlmtrain.data.loader import GlobalBatchShard, Loader
from xlmtrain.errors import CheckpointError, DataError, UserError
from xlmtrain.evaluate.perplexity import Interrupted
from xlmtrain.evaluate.validator import Validator
from xlmtrain.metrics.loggers import Console, MetricsWriter
from xlmtrain.metrics.timer import StepTimer
from xlmtrain.objective import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.oom import explain_oom
from xlmtrain.runtime.signals import StopRequest
from xlmtrain.runtime.watchdog import Watchdog
from xlmtrain.train.async_checkpoint import AsyncCheckpointer, Best
from xlmtrain.train.metrics import progress_line, throughput_metrics, training_metrics
from xlmtrain.train.monitor import StepMetrics, StepMonitor, where
from xlmtrain.train.sharding import whole_model, whole_tensors
from xlmtrain.train.state import Progress, optimizer_tensors
from xlmtrain.train.step import StepOutput, TrainStep

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

    ``validator``: None where there is no validation text. ``saver``, ``writer`` and ``advise``: None on all processes
    but the main one; ``advise`` says what is new about how the run goes.
    """

    config: Config
    distributed: Distributed
    model: LanguageModel
    optimizer: torch.optim.Optimizer
    stepper: TrainStep
    loader: Loader
    validator: Validator | None
    saver: AsyncCheckpointer | None
    writer: MetricsWriter | None
    advise: Callable[[], list[str]] | None
    stop: StopRequest
    watch: Watchdog
    progress: Progress
    console: Console = field(init=False, default_factory=Console)
    clock: StepTimer = field(init=False, default_factory=StepTimer)
    # Steps whose figures are still on the device, and those whose figures are in no line of metrics yet.
    unread: list[tuple[StepOutput, GlobalBatchShard]] = field(init=False, default_factory=list)
    unlogged: list[StepMetrics] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.guard = StepMonitor(self.config, self.model, self.stepper, self.distributed, self.progress)
        self.saved = self._state_mark()

    def run(self) -> Outcome:
        """Train; returns when the steps are done, the metric no longer improves, or a signal came.

        Raises NumericalError if the loss or the gradient is no longer finite, or the processes' weights differ;
        CheckpointError if no checkpoint can be written any more; DataError if the data cannot be had.
        """
        try:
            outcome = self._begin() or self._train()
            self._wait_for_saver()
            if self.saver is not None:
                self.saver.finish()
        finally:
            self.console.clear()
            if self.saver is not None:
                self.saver.close()
            if self.writer is not None:
                self.writer.close()
        return outcome or Outcome("done", f"{self.progress.step} steps")

    def _begin(self) -> Outcome | None:
        """What the start before may not have come to."""
        if self.saver is not None:
            self.saver.mark(self._best())
        return self._stopped() or self._evaluate_if_due() or self._out_of_patience()

    def _train(self) -> Outcome | None:
        config, progress = self.config.train, self.progress
        self.model.train()
        self.clock.reset()
        for data in self.loader.steps(progress.step, config.steps, progress.cursors):
            self.clock.data_ready()
            stopping = self._step_or_explain(data)
            if stopping or progress.step % config.log_every == 0 or progress.step == config.steps:
                self._log()
            if config.replica_check_every and progress.step % config.replica_check_every == 0:
                self.guard.compare()
            outcome = self._preempted() if stopping else self._evaluate_if_due()
            if outcome or progress.step % config.save_every == 0 or progress.step == config.steps:
                self._save()
                if not outcome:  # what ends is in a hurry
                    self._warn()
            if outcome:
                return outcome
            self.watch.progress()
            self.clock.resume()
        return None

    def _stopped(self) -> Outcome | None:
        """Whether any process was asked to stop, as all of them agree."""
        return self._preempted() if self.distributed.all_reduce_sum([float(self.stop.signal is not None)])[0] else None

    def _preempted(self) -> Outcome:
        reason = f"signal {self.stop.signal}" if self.stop.signal else "signal to another process"
        return Outcome("preempted", reason, self.stop.signal)

    def _step_or_explain(self, data: GlobalBatchShard) -> bool:
        try:
            with explain_oom(self.config):
                failpoint("step")
                return self._step(data)
        except UserError:
            raise
        except Exception as error:
            rank, run = self.distributed.rank, self.config.run
            log.error("rank %d of run=%s failed in %s: %s: %s", rank, run, where(data), type(error).__name__, error)
            raise

    def _step(self, data: GlobalBatchShard) -> bool:
        """Train on one global batch; whether any process was asked to stop.

        Where a process cannot have its data, all save what is done so far, and raise DataError.
        """
        broken = self.saver is not None and self.saver.broken()
        flags = [self.stop.signal is not None, broken, data.error is not None]
        *targets, tokens, positions, stopping, unsafe, lost = self.distributed.all_reduce_sum(
            [*data.targets, data.tokens, data.positions, *map(float, flags)]
        )
        if lost:
            self._save()
            self._wait_for_saver()
            raise data_error(data.error)
        if unsafe:
            self._wait_for_saver()
        self.unread.append((self.stepper(data, targets), data))
        self.progress.step = data.step + 1
        self.progress.cursors = data.sampler_state
        self.progress.tokens += int(tokens)
        if self.guard.at_once:
            self._read()
        self.clock.step_done(tokens, positions, sum(targets))
        return stopping > 0

    def _read(self) -> None:
        unread, self.unread = self.unread, []
        self.unlogged += self.guard.read(unread)

    def _log(self) -> None:
        """Write the figures of the steps since the last time."""
        self._read()
        steps, self.unlogged = self.unlogged, []
        if not steps:
            return
        self.clock.step_done(0, 0, 0)  # reading the figures waited for the device to finish the steps
        self.progress.seconds += self.clock.seconds
        figures = training_metrics(steps, self.progress, self.stepper)
        device, world_size = self.distributed.device, self.distributed.world_size
        figures |= throughput_metrics(self.clock, self.config, self.model, self.stepper, device, world_size)
        if self.writer is not None:
            self.writer.scalars(self.progress.step, figures)
            self.console.progress(progress_line(figures, self.progress, self.config.train.steps))
        self.clock.reset()

    @torch.compiler.set_stance("force_eager")  # in its many shapes it would use up how often torch compiles a block
    def _evaluate_if_due(self) -> Outcome | None:
        """Evaluate at the first and last step and every so often; an Outcome if the metric has stopped improving."""
        step, config = self.progress.step, self.config.evaluate
        due = step in (0, self.config.train.steps) or (config.every > 0 and step % config.every == 0)
        if self.validator is None or not due or self.progress.evaluated == step:
            return None
        self._log()
        model = whole_model(self.model)
        try:
            figures = self.validator(model, self.stepper.precision, self.distributed, self._between_batches)
        except Interrupted:  # the next start evaluates
            return self._preempted()
        except DataError:
            self._save()
            self._wait_for_saver()
            raise
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
            named = ((name.partition("/")[2], figure) for name, figure in figures.items() if name.startswith("valid/"))
            shown = "  ".join(f"{name} {figure:.2f}" for name, figure in named)
            for name, text in self.validator.samples(model, self.stepper.precision, self.distributed).items():
                self.writer.text(step, f"samples/{name}", text)
            self.console.message(f"step {step} | {shown}{'  (best so far)' if improved else ''}")
        if step > 0 and (improved or self.saved[0] == step):  # else a checkpoint of this step does not know of it
            self._save()
        return self._out_of_patience() or self._stopped()

    def _warn(self) -> None:
        for line in self.advise() if self.advise is not None else []:
            self.console.clear()
            log.warning("WARNING: %s", line)

    def _between_batches(self) -> bool:
        self.watch.progress()
        return self.stop.signal is not None

    def _out_of_patience(self) -> Outcome | None:
        config = self.config.evaluate
        if config.patience and self.progress.without_best >= config.patience:
            return Outcome("done", f"{config.metric} has not improved in {config.patience} evaluations")
        return None

    def _best(self) -> Best | None:
        progress = self.progress
        if progress.best is None:
            return None
        return Best(progress.best_step, self.config.evaluate.metric, progress.best)

    def _state_mark(self) -> tuple[int, int]:
        """What tells one state of the run from another."""
        return self.progress.step, self.progress.evaluated

    def _save(self) -> None:
        """Have a checkpoint of the step written, once."""
        self._log()
        if self.saved == self._state_mark():
            return
        if self.config.train.replica_check_every:
            self.guard.compare()
        self._wait_for_saver()
        if self.writer is not None:
            self.writer.flush()
        weights = whole_tensors(self.model.state_dict(), self.distributed.is_main)
        moments = whole_tensors(optimizer_tensors(self.optimizer, self.model), self.distributed.is_main)
        if self.saver is not None:
            state = {"progress": self.progress.to_json(), "scaler": self.stepper.scaler.state_dict()}
            self.saver.save(self.progress.step, weights, moments, state, self._best())
        self.saved = self._state_mark()

    def _wait_for_saver(self) -> None:
        """Until what is being written is on the disk; the other processes wait for the main one, who alone knows.

        They hear from it every second, so that no time limit of theirs is in the way. Raises what the saver ended with.
        """
        while self.distributed.all_reduce_sum([float(self.saver is not None and self.saver.busy(patience=1.0))])[0]:
            self.watch.progress()
        broken = self.saver is not None and self.saver.broken()
        if self.distributed.all_reduce_sum([float(broken)])[0]:
            if self.saver is not None:
                self.saver.settle()
            raise CheckpointError("the main process cannot write checkpoints, and says why")
