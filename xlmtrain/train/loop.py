"""The training loop: steps, and between them metrics, evaluation and checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from xlmtrain.config.phases import phase_at
from xlmtrain.config.schema import Config
from xlmtrain.data.disk_array import data_error
from xlmtrain.data.loader import Loader, StepBatches
from xlmtrain.errors import DataError, DeviceOutOfMemory, PeerError, UserError
from xlmtrain.metrics.loggers import PHASE, MetricsWriter
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.oom import explain_oom, step_advice
from xlmtrain.runtime.process import Interrupted, StopRequest, collect_garbage
from xlmtrain.runtime.watchdog import Watchdog
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.evaluation import Evaluator, PeriodicEvaluation
from xlmtrain.train.metrics_log import MetricsLog
from xlmtrain.train.monitor import StepMonitor, where
from xlmtrain.train.saver import RunSaver
from xlmtrain.train.state import TrainState
from xlmtrain.train.step import TrainStep

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """Why the loop ended: ``done``, or ``preempted`` by ``signal``."""

    status: str
    reason: str
    signal: int | None = None


@dataclass
class TrainingLoop:
    """Trains from ``state`` to the end of the last phase.

    ``evaluator``: None without validation text. ``writer``, ``advise``: None on all processes but the main one.
    ``advise`` returns new warnings about the run.
    """

    config: Config
    train_step: TrainStep
    loader: Loader
    evaluator: Evaluator | None
    checkpointer: AsyncCheckpointer
    writer: MetricsWriter | None
    advise: Callable[[], list[str]] | None
    stop: StopRequest
    watchdog: Watchdog
    state: TrainState

    def __post_init__(self) -> None:
        config, step, state, self.distributed = self.config, self.train_step, self.state, self.train_step.distributed
        self.phases = step.phases
        self._ends = {phase.span.end for phase in step.phases}
        self.monitor = StepMonitor(config, step, state)
        self.metrics = MetricsLog(step, self.monitor, self.writer, state)
        self.saver = RunSaver(step, state, config.evaluate.metric, self.checkpointer)
        self.evaluation = PeriodicEvaluation(config, self.evaluator, step, state, self.writer)

    def run(self) -> Outcome:
        """Train until the steps are done, the metric no longer improves, or a signal came.

        Raises NumericalError if the loss or the gradient is not finite, or replicas differ; CheckpointError if
        checkpoints cannot be written; DataError if the data cannot be read; DeviceOutOfMemory.
        """
        try:
            # An interrupted start may have left these to do: best.json, an evaluation.
            self.checkpointer.update_best(self.saver.best)
            outcome = self._stopped() or self._evaluate_if_due() or self._out_of_patience() or self._train()
            self.checkpointer.finalize()
        finally:
            self.metrics.close()
            self.checkpointer.close()
        return outcome or Outcome("done", f"{self.state.step} steps")

    def _train(self) -> Outcome | None:
        config, state = self.config.train, self.state
        self._announce_phase()
        self.train_step.model.train()
        self.metrics.timer.reset()
        for data in self.loader.steps(state.step, self.phases[-1].span.end, state.sampler_state):
            self.metrics.timer.data_ready()
            stopping = self._step_or_explain(data)
            at_end = state.step in self._ends
            if stopping or at_end or state.step % config.log_every == 0:
                self.metrics.write()
            if config.replica_check_every and state.step % config.replica_check_every == 0:
                self.monitor.check_replicas()
            outcome = self._preempted() if stopping else self._evaluate_if_due()
            due = at_end or state.step % config.save_every == 0
            if outcome or due:
                self._save()
            if outcome:
                return outcome  # a run that ends does not wait for advice
            if due:
                self._warn()
            if at_end:
                self._announce_phase()
            collect_garbage(state.step)
            self.metrics.energy.read_if_due()
            self.watchdog.report_progress()
            self.metrics.timer.resume()
        return None

    def _announce_phase(self) -> None:
        """Log the phase of the next step and what it changes; nothing at the end or without phases."""
        phase = phase_at(self.phases, self.state.step)
        if self.writer is not None and phase.name and self.state.step < phase.span.end:
            changes = "".join(f", {key}={value}" for key, value in phase.changes.items())
            first, last = phase.span.start + 1, phase.span.end
            self.writer.console.message(f"phase {phase.name}: steps {first} to {last}{changes}")
            self.writer.text(phase.span.start, PHASE, f"{phase.name}{changes}")

    def _step_or_explain(self, data: StepBatches) -> bool:
        try:
            with explain_oom(*step_advice(phase_at(self.phases, data.step).settings)):
                failpoint("step")
                return self._step(data)
        except UserError:
            raise
        except Exception as error:
            rank, run = self.distributed.rank, self.config.run
            log.error("rank %d of run=%s failed in %s: %s: %s", rank, run, where(data), type(error).__name__, error)
            raise

    def _step(self, data: StepBatches) -> bool:
        """Train on one global batch. Returns True if any process was asked to stop.

        If a process has no data, all of them save the steps so far and raise DataError.
        """
        flags = [self.stop.signal is not None, self.checkpointer.has_failed(), data.error is not None]
        *targets, tokens, positions, stopping, save_failed, data_lost = self.distributed.all_reduce_sum(
            [*data.targets, data.tokens, data.padded_tokens, *map(float, flags)]
        )
        if data_lost:
            self._save_and_wait()
            raise data_error(data.error)
        if save_failed:
            self.checkpointer.wait()
        output = self.train_step(data, targets)
        self.state.step = data.step + 1
        self.state.sampler_state = data.sampler_state
        self.state.tokens += int(tokens)
        self.metrics.add(output, data)
        self.metrics.timer.step_done(tokens, positions, sum(targets))
        return stopping > 0

    def _evaluate_if_due(self) -> Outcome | None:
        """Evaluate if it is due. Returns an Outcome if the metric has stopped improving or a signal came."""
        if not self.evaluation.is_due():
            return None
        self.metrics.write()
        try:
            improved = self.evaluation.run(self._between_batches)
        except Interrupted:  # the next start evaluates
            return self._preempted()
        except (DataError, DeviceOutOfMemory, PeerError) as error:
            # On all processes, so they can save together, unless some of them wait in a forward pass for another one.
            if not (self.train_step.parallel.lockstep and error.exit_code == DeviceOutOfMemory.exit_code):
                self._save_and_wait()
            raise
        step = self.state.step
        if step > 0 and (improved or self.saver.saved_step == step):  # a checkpoint of this step lacks the evaluation
            self._save()
        return self._out_of_patience() or self._stopped()

    def _between_batches(self) -> bool:
        self.watchdog.report_progress()
        self.metrics.energy.read_if_due()
        return self.stop.signal is not None

    def _save(self) -> None:
        """Save the run, unless its newest checkpoint is current."""
        self.metrics.write()
        if self.saver.is_current:
            return
        if self.config.train.replica_check_every:
            self.monitor.check_replicas()
        self.metrics.write_energy()
        self.metrics.flush()
        self.saver.save()

    def _save_and_wait(self) -> None:
        self._save()
        self.checkpointer.wait()

    def _warn(self) -> None:
        """Log new warnings about the run. Advice that fails is given up: it must never end a run."""
        try:
            lines = self.advise() if self.advise is not None else []
        except Exception as error:
            log.warning("no more advice on this run: %s: %s", type(error).__name__, " ".join(str(error).split()))
            self.advise, lines = None, []
        if lines and self.writer is not None:
            self.writer.console.clear()
        for line in lines:
            log.warning("%s", line)

    def _stopped(self) -> Outcome | None:
        """Return an Outcome if any rank received a stop signal (all-reduced), else None."""
        return self._preempted() if self.distributed.any(self.stop.signal is not None) else None

    def _preempted(self) -> Outcome:
        return Outcome("preempted", self.stop.reason, self.stop.signal)

    def _out_of_patience(self) -> Outcome | None:
        config = self.config.evaluate
        if self.state.out_of_patience(config.patience):
            return Outcome("done", f"{config.metric} has not improved in {config.patience} evaluations")
        return None
