"""The training of one seed: steps, evaluation, early stopping, checkpoints; then the test with the best weights."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xlmtrain.config.finetune import FinetuneConfig
from xlmtrain.config.schema import Precision, TrainConfig
from xlmtrain.data.batch import Batch
from xlmtrain.diagnostics.rules import warmup_too_long
from xlmtrain.errors import NumericalError
from xlmtrain.evaluate.classification_data import Encoded
from xlmtrain.finetune.batches import training_batch
from xlmtrain.finetune.classifier import Classifier
from xlmtrain.finetune.scores import Scores, evaluate, mean_and_deviation
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.metrics.loggers import Console, MetricsWriter
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import autocast, make_scaler
from xlmtrain.runtime.process import StopRequest
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import read_checkpoint
from xlmtrain.train.parallel import DdpParallel
from xlmtrain.train.resume import resume
from xlmtrain.train.saver import RunSaver
from xlmtrain.train.state import SelectionState
from xlmtrain.train.step import OptimizerStep, StepOutput

log = logging.getLogger(__name__)
_SHOWN = ("accuracy", "f1")


@dataclass(kw_only=True)
class FinetuneState(SelectionState):
    """Progress of one seed. ``best`` is in %, -1 before the first evaluation."""

    best: float | None = -1.0


@dataclass
class SeedTraining:
    """Trains a classifier with one seed and tests it.

    ``directory``: of this seed. ``splits``: ``train``, ``valid`` and ``test``, each language -> examples; ``labels``:
    their number. ``precision``: not ``auto``. ``still_alive``: called after every step and while the disk is slow.
    """

    config: FinetuneConfig
    seed: int
    directory: Path
    saved: PretrainedBundle
    labels: int
    splits: Mapping[str, Mapping[str, Encoded]]
    distributed: Distributed
    precision: Precision
    stop: StopRequest
    still_alive: Callable[[], None]
    state: FinetuneState = field(init=False)

    def __post_init__(self) -> None:
        config, device = self.config, self.distributed.device
        self.files = list(self.splits["train"].values())
        examples = sum(len(file.ids) for file in self.files)
        self.steps = max(1, math.ceil(config.train.epochs * examples / config.train.batch_size))
        self.every = config.evaluate.every or max(1, round(examples / config.train.batch_size))
        torch.manual_seed(torch_seed(self.seed, "init"))
        self.model = Classifier(self.saved, self.labels, config.train.dropout, config.train.pooling)
        self.model.freeze_except(config.train.layers)
        self.model.to(device)
        optimizer = make_optimizer(config.optim, self.model, device)
        scaler = make_scaler(TrainConfig(), self.precision, device)
        self.store = CheckpointManager(self.directory / "checkpoints", keep_last=1)
        progress = resume(self.store, self.model, optimizer, scaler, self.distributed)
        self.state = FinetuneState(**progress or {})
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.step = OptimizerStep(config.optim, self.steps, learning, optimizer, scaler, self.distributed)
        self.saver = RunSaver(
            model=self.model,
            optimizer=optimizer,
            scaler=scaler,
            state=self.state,
            metric=f"valid/{config.evaluate.metric.value}",
            checkpointer=AsyncCheckpointer(self.store) if self.distributed.is_main else None,
            distributed=self.distributed,
            still_alive=self.still_alive,
        )

    def run(self) -> dict[str, Any] | None:
        """Train and test. Returns the result as plain JSON values, or None if a signal came before the end."""
        state, is_main = self.state, self.distributed.is_main
        for warning in warmup_too_long(self.config.optim.warmup_steps, self.steps) if is_main else ():
            log.warning("WARNING: %s", warning)
        writer = MetricsWriter(self.directory, state.step, state.step) if is_main else None
        try:
            finished = self._train(writer)
        finally:
            self.saver.close()
            if writer is not None:
                writer.close()
        return self._result() if finished else None

    def _train(self, writer: MetricsWriter | None) -> bool:
        """Train to the last step or until patience ends. Returns False if a signal came first."""
        module, console, state = self._module(), Console(), self.state
        self.model.train()
        losses: list[torch.Tensor] = []
        stopping = False
        while not stopping and not self._is_finished():
            began = time.monotonic()
            output = self._step(module)
            stopping = self.distributed.any(self.stop.signal is not None)
            losses.append(output.losses)
            state.seconds += time.monotonic() - began
            last = state.step == self.steps
            if stopping or last or state.step % self.config.train.log_every == 0:
                self._log(torch.stack(losses).sum().item() / len(losses), output, writer, console)
                losses = []
            due = last or state.step % self.every == 0
            if due:
                self._evaluate(writer, console)
            if due or stopping:
                if writer is not None:
                    writer.flush()
                self.saver.save()
                self.saver.finish()  # a lost checkpoint of the best weights could not be tested
            self.still_alive()
        console.clear()
        return self._is_finished()

    def _is_finished(self) -> bool:
        return self.state.step >= self.steps or self.state.out_of_patience(self.config.evaluate.patience)

    def _step(self, module: nn.Module) -> StepOutput:
        """Train on the next batch. Raises NumericalError if the gradient is not finite."""
        step, rank, world_size = self.state.step, self.distributed.rank, self.distributed.world_size
        size = self.config.train.batch_size
        batch = training_batch(self.files, self.seed, step, size, rank, world_size)
        torch.manual_seed(torch_seed(self.seed, "dropout", step, rank))
        output = self.step(step, [float(size)], partial(self._backward, module, batch))
        # fp16 lowers its loss scale instead.
        if not math.isfinite(float(output.grad_norm)) and not self.step.scaler.is_enabled():
            raise NumericalError(
                f"the gradient is not finite in step {step + 1} of seed {self.seed}; the usual fix is a lower optim.lr "
                "or a longer optim.warmup_steps"
            )
        self.state.step += 1
        return output

    def _backward(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the gradient of the mean loss over the global batch. Returns this process's summed loss ()."""
        with autocast(self.precision, self.distributed.device):
            loss: torch.Tensor = module(batch.to(self.distributed.device))
        # Data parallelism averages the gradients over the processes.
        self.step.scaler.scale(loss * (self.distributed.world_size / self.config.train.batch_size)).backward()
        return loss.detach()

    def _module(self) -> nn.Module:
        """Return the module to call in training: with several processes, one that averages the gradients."""
        if self.distributed.world_size == 1:
            return self.model
        return DdpParallel(self.model, self.distributed.device).module

    def _log(self, loss: float, output: StepOutput, writer: MetricsWriter | None, console: Console) -> None:
        """Write metrics. ``loss``: of this process, the mean over the steps since the last record."""
        (total,) = self.distributed.all_reduce_sum([loss])
        metrics = {
            "train/loss": total / self.config.train.batch_size,
            "train/lr": output.learning_rate,
            "train/grad_norm": float(output.grad_norm),
            "progress/seconds": self.state.seconds,
        }
        if writer is not None:
            writer.scalars(self.state.step, metrics)
            where = f"seed {self.seed} step {self.state.step}/{self.steps}"
            console.progress(f"{where} | loss {metrics['train/loss']:.3f} | lr {metrics['train/lr']:.2e}")

    def _evaluate(self, writer: MetricsWriter | None, console: Console) -> None:
        """Score the validation text. Without any, the last weights count as the best."""
        state = self.state
        if not self.splits["valid"]:
            state.evaluated = state.best_step = state.step
            return
        scores = self._scores("valid")
        value, _ = mean_and_deviation([one.of(self.config.evaluate.metric) for one in scores.values()])
        improved = state.add_evaluation(value, rising=True)
        if writer is not None:
            metrics = {f"valid/{key}_{name}": getattr(one, name) for key, one in scores.items() for name in _SHOWN}
            writer.scalars(state.step, metrics)
            shown = "  ".join(f"{name.partition('/')[2]} {value:.1f}" for name, value in metrics.items())
            best = "  (best so far)" if improved else ""
            console.message(f"seed {self.seed} step {state.step} | {shown}{best}")

    def _scores(self, split: str) -> dict[str, Scores]:
        return evaluate(self.model, self.splits[split], self.labels, self.precision, self.distributed)

    def _result(self) -> dict[str, Any]:
        """Return the scores of the best weights."""
        best = read_checkpoint(self.store.path(self.state.best_step), optimizer=False)
        self.model.load_state_dict(best.model)
        return {
            "seed": self.seed,
            "steps": self.state.step,
            "best_step": self.state.best_step,
            "seconds": self.state.seconds,
            "valid": {language: asdict(scores) for language, scores in self._scores("valid").items()},
            "test": {language: asdict(scores) for language, scores in self._scores("test").items()},
        }
