"""The training of one seed: steps, evaluation, early stopping, checkpoints; then the test with the best weights."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xlmtrain.config.finetune import FinetuneConfig
from xlmtrain.config.train import Precision, TrainConfig
from xlmtrain.data.batch import Batch
from xlmtrain.diagnostics.rules import warmup_too_long
from xlmtrain.errors import NumericalError
from xlmtrain.evaluate.classification_data import Encoded
from xlmtrain.finetune.batches import training_batch
from xlmtrain.finetune.classifier import TaskModel
from xlmtrain.finetune.evaluation import evaluate_classifier
from xlmtrain.finetune.scores import Scores, mean_and_deviation
from xlmtrain.finetune.tasks import Task, selection_metric
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.metrics.loggers import MetricsWriter
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.optim.schedule import learning_rate
from xlmtrain.runtime.device import seed_device
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import autocast, make_scaler
from xlmtrain.runtime.process import StopRequest, collect_garbage
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import read_checkpoint
from xlmtrain.train.parallel import DdpModel, ParallelModel
from xlmtrain.train.saver import RunSaver, resume
from xlmtrain.train.state import SelectionState
from xlmtrain.train.step import OptimizerStep, StepOutput

log = logging.getLogger(__name__)


@dataclass
class SeedTraining:
    """Trains a model for ``task`` with one seed and tests it.

    ``directory``: of this seed. ``splits``: ``train``, ``valid`` and ``test``, each language -> examples.
    ``precision``: not ``auto``. ``report_progress``: called after every step and batch, and while the disk is slow.
    """

    config: FinetuneConfig
    seed: int
    directory: Path
    saved: PretrainedBundle
    task: Task[Any]
    splits: Mapping[str, Mapping[str, Encoded]]
    distributed: Distributed
    precision: Precision
    stop: StopRequest
    report_progress: Callable[[], None]

    def __post_init__(self) -> None:
        config, train, device = self.config, self.config.train, self.distributed.device
        self.files = list(self.splits["train"].values())
        examples = sum(len(file.ids) for file in self.files)
        self.steps = max(1, math.ceil(train.epochs * examples / train.batch_size))
        self.every = config.evaluate.every or max(1, round(examples / train.batch_size))
        torch.manual_seed(torch_seed(self.seed, "init"))
        self.model = TaskModel(self.saved, self.task, train.dropout, train.pooling)
        self.model.freeze_except(train.layers)
        self.model.to(device)
        parallel = ParallelModel(self.model) if self.distributed.world_size == 1 else DdpModel(self.model, device)
        optimizer = make_optimizer(config.optim, self.model, device)
        scaler = make_scaler(TrainConfig(), self.precision, device)
        self.optimizer_step = OptimizerStep(
            config.optim, self._rate, parallel, optimizer, scaler, self.precision, self.distributed
        )
        self.store = CheckpointManager(self.directory / "checkpoints", keep_last=1)
        saved = resume(self.store, self.optimizer_step, self.report_progress)
        # Without validation text there is never a better value, and the last weights count as the best. A correlation
        # is at least -100 %.
        self.state = SelectionState.from_json(saved or {"best": -101.0})
        self.metric = selection_metric(config.evaluate.metric, self.task)
        metric = f"valid/{self.metric.value}"
        self.checkpointer = AsyncCheckpointer(self.store, self.distributed, self.report_progress)
        self.saver = RunSaver(self.optimizer_step, self.state, metric, self.checkpointer)
        self.writer: MetricsWriter | None = None

    def _rate(self, step: int) -> float:
        return learning_rate(self.config.optim, step, self.steps)

    def run(self) -> dict[str, Any] | None:
        """Train and test. Returns the result as plain JSON values, or None if a signal came before the end."""
        if self.distributed.is_main:
            for warning in warmup_too_long(self.config.optim.warmup_steps, self.steps):
                log.warning("%s", warning)
            self.writer = MetricsWriter(self.directory, self.state.step, self.state.step)
        try:
            self._train()
        finally:
            if self.writer is not None:
                self.writer.close()
            self.checkpointer.close()
        return self._result() if self._is_finished() else None

    def _is_finished(self) -> bool:
        return self.state.step >= self.steps or self.state.out_of_patience(self.config.evaluate.patience)

    def _train(self) -> None:
        """Train to the last step, until patience ends or a signal comes."""
        state = self.state
        self.model.train()
        losses: list[torch.Tensor] = []
        stopping = False
        while not stopping and not self._is_finished():
            began = time.monotonic()
            output = self._step()
            stopping = self.distributed.any(self.stop.signal is not None)
            losses.append(output.losses / output.targets[0])
            state.seconds += time.monotonic() - began
            last = state.step == self.steps
            if stopping or last or state.step % self.config.train.log_every == 0:
                self._log(torch.stack(losses).sum().item() / len(losses), output)
                losses = []
            due = last or state.step % self.every == 0
            if due:
                self._evaluate()
            if due or stopping:
                if self.writer is not None:
                    self.writer.flush()
                self.saver.save()
                self.checkpointer.finalize()  # a lost checkpoint of the best weights could not be tested
            collect_garbage(state.step)
            self.report_progress()

    def _step(self) -> StepOutput:
        """Train on the next batch. Raises NumericalError if the gradient is not finite."""
        step, rank, world_size = self.state.step, self.distributed.rank, self.distributed.world_size
        size = self.config.train.batch_size
        batch, targets = training_batch(self.files, self.seed, step, size, rank, world_size)
        seed_device(torch_seed(self.seed, "dropout", step, rank), self.distributed.device)
        output = self.optimizer_step.run(step, [float(targets)], partial(self._backward, batch, targets))
        # fp16 lowers its loss scale instead.
        if not math.isfinite(float(output.grad_norm)) and not self.optimizer_step.scaler.is_enabled():
            raise NumericalError(
                f"the gradient is not finite in step {step + 1} of seed {self.seed}; the usual fix is a lower optim.lr "
                "or a longer optim.warmup_steps"
            )
        self.state.step += 1
        return output

    def _backward(self, batch: Batch, targets: int) -> torch.Tensor:
        """Compute the gradient of the mean loss over the ``targets`` of the global batch. Returns this process's summed
        loss ()."""
        with autocast(self.precision, self.distributed.device):
            loss: torch.Tensor = self.optimizer_step.parallel.wrapped_model(batch.to(self.distributed.device))
        # Data parallelism averages the gradients over the processes.
        weight = self.distributed.world_size / targets
        self.optimizer_step.scaler.scale(loss * weight).backward()
        return loss.detach()

    def _log(self, loss: float, output: StepOutput) -> None:
        """Write metrics. ``loss``: this process's part of the mean over the steps since the last record."""
        total = self.distributed.all_reduce_sum([loss])[0]
        if self.writer is None:
            return
        rate, norm = output.learning_rate, float(output.grad_norm)
        metrics = {"train/loss": total, "train/lr": rate, "train/grad_norm": norm}
        self.writer.scalars(self.state.step, {**metrics, "progress/seconds": self.state.seconds})
        self.writer.console.progress(
            f"seed {self.seed} step {self.state.step}/{self.steps} | loss {total:.3f} | lr {rate:.2e}"
        )

    def _evaluate(self) -> None:
        """Score the validation text. Without any, the last weights count as the best."""
        state = self.state
        if not self.splits["valid"]:
            state.evaluated = state.best_step = state.step
            return
        scores = self._scores("valid")
        value, _ = mean_and_deviation([score.of(self.metric) for score in scores.values()])
        best = " | best" if state.add_evaluation(value, rising=True) else ""
        if self.writer is not None:
            metrics = {f"valid/{key}_{m}": value for key, score in scores.items() for m, value in score.metrics.items()}
            self.writer.scalars(state.step, metrics)
            shown = "  ".join(f"{key}_{self.metric.value} {score.of(self.metric):.1f}" for key, score in scores.items())
            self.writer.console.message(f"seed {self.seed} step {state.step} | {shown}{best}")

    def _scores(self, split: str) -> dict[str, Scores]:
        return evaluate_classifier(
            self.model, self.splits[split], self.precision, self.distributed, self.report_progress
        )

    def _result(self) -> dict[str, Any]:
        """Return the scores of the best weights."""
        best = read_checkpoint(self.store.path(self.state.best_step), optimizer=False)
        self.model.load_state_dict(best.model)
        valid, test = (
            {language: asdict(scores) for language, scores in self._scores(split).items()}
            for split in ("valid", "test")
        )
        progress = {name: getattr(self.state, name) for name in ("best", "best_step", "seconds")}
        return {"seed": self.seed, "steps": self.state.step, **progress, "valid": valid, "test": test}
