"""The training of one seed: steps, evaluation, early stopping, checkpoints; then the test with the best weights."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xlmtrain.config.finetune import FinetuneConfig
from xlmtrain.config.schema import Precision, TrainConfig
from xlmtrain.diagnostics.rules import warmup_too_long
from xlmtrain.errors import NumericalError
from xlmtrain.evaluate.classification_data import Encoded
from xlmtrain.finetune.batches import training_batch
from xlmtrain.finetune.classifier import Classifier
from xlmtrain.finetune.scores import Scores, evaluate, mean_and_deviation
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.metrics.loggers import Console, MetricsWriter
from xlmtrain.model.language_model import check_state_dict
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.optim.schedule import learning_rate
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import autocast, make_scaler
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.runtime.signals import StopRequest
from xlmtrain.train.checkpoint import CheckpointManager, read_checkpoint
from xlmtrain.train.parallel import DdpParallel
from xlmtrain.train.state import load_optimizer_tensors, optimizer_tensors

log = logging.getLogger(__name__)


@dataclass
class Standing:
    """How far the training of a seed has come. ``best`` is in %, -1 before the first evaluation."""

    step: int = 0
    seconds: float = 0.0
    evaluated: int = -1
    best: float = -1.0
    best_step: int = -1
    without_best: int = 0


@dataclass
class Finetuning:
    """Trains a classifier and judges it.

    ``directory``: of this seed. ``splits``: ``train``, ``valid`` and ``test``, each language -> examples; ``labels``:
    how many there are. ``precision``: settled.
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
    standing: Standing = field(init=False, default_factory=Standing)

    def __post_init__(self) -> None:
        config, device = self.config, self.distributed.device
        self.learned = list(self.splits["train"].values())
        examples = sum(len(file.ids) for file in self.learned)
        self.steps = max(1, math.ceil(config.train.epochs * examples / config.train.batch_size))
        self.every = config.evaluate.every or max(1, round(examples / config.train.batch_size))
        torch.manual_seed(torch_seed(self.seed, "init"))
        self.model = Classifier(self.saved, self.labels, config.train.dropout, config.train.pooling)
        self.model.choose_layers(config.train.layers)
        self.model.to(device)
        self.optimizer = make_optimizer(config.optim, self.model, device)
        self.scaler = make_scaler(TrainConfig(), self.precision, device)
        self.store = CheckpointManager(self.directory / "checkpoints", keep_last=1)

    def run(self) -> dict[str, Any] | None:
        """Train and test; the result as plain JSON values, or None if a signal came before the end."""
        self._resume()
        for finding in warmup_too_long(self.config.optim.warmup_steps, self.steps) if self.distributed.is_main else ():
            log.warning("WARNING: %s", finding)
        writer = (
            MetricsWriter(self.directory, self.standing.step, self.standing.step) if self.distributed.is_main else None
        )
        try:
            finished = self._train(writer)
        finally:
            if writer is not None:
                writer.close()
        return self._result() if finished else None

    def _train(self, writer: MetricsWriter | None) -> bool:
        """Whether the training came to its end."""
        module, console, standing = self._module(), Console(), self.standing
        self.model.train()
        losses: list[torch.Tensor] = []
        stopping = False
        while not stopping and standing.step < self.steps and not self._out_of_patience():
            began = time.monotonic()
            loss, norm, stopping = self._step(module)
            losses.append(loss)
            standing.seconds += time.monotonic() - began
            last = standing.step == self.steps
            if stopping or last or standing.step % self.config.train.log_every == 0:
                self._log(torch.stack(losses).sum().item() / len(losses), norm, writer, console)
                losses = []
            due = last or standing.step % self.every == 0
            if due:
                self._evaluate(writer, console)
            if due or stopping:
                self._save(writer)
        console.clear()
        return standing.step == self.steps or self._out_of_patience()

    def _log(self, loss: float, norm: float, writer: MetricsWriter | None, console: Console) -> None:
        """``loss``: this process's, of a step, as a mean over the steps since the last time."""
        (total,) = self.distributed.all_reduce_sum([loss])
        figures = {
            "train/loss": total / self.config.train.batch_size,
            "train/lr": self.optimizer.param_groups[0]["lr"],
            "train/grad_norm": norm,
            "progress/seconds": self.standing.seconds,
        }
        if writer is not None:
            writer.scalars(self.standing.step, figures)
            where = f"seed {self.seed} step {self.standing.step}/{self.steps}"
            console.progress(f"{where} | loss {figures['train/loss']:.3f} | lr {figures['train/lr']:.2e}")

    def _step(self, module: nn.Module) -> tuple[torch.Tensor, float, bool]:
        """One step of the optimizer: this process's summed loss, the gradient's norm, whether any was told to stop."""
        config, standing, distributed = self.config, self.standing, self.distributed
        rank, world_size, size = distributed.rank, distributed.world_size, config.train.batch_size
        rate = learning_rate(config.optim, standing.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = training_batch(self.learned, self.seed, standing.step, size, rank, world_size)
        torch.manual_seed(torch_seed(self.seed, "dropout", standing.step, rank))
        with autocast(self.precision, distributed.device):
            loss = module(batch.to(distributed.device))
        self.scaler.scale(loss * (world_size / size)).backward()  # the processes' gradients are averaged
        self.scaler.unscale_(self.optimizer)
        clip = config.optim.clip_grad_norm
        norm = float(nn.utils.clip_grad_norm_(self._learning(), clip if clip > 0 else float("inf")))
        if not math.isfinite(norm) and not self.scaler.is_enabled():  # fp16 skips the step and lowers its scale
            raise NumericalError(
                f"the gradient is not finite in step {standing.step + 1} of seed {self.seed}; a lower optim.lr or a "
                "longer optim.warmup_steps is the usual cure"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        standing.step += 1
        return loss.detach(), norm, distributed.all_reduce_sum([float(self.stop.signal is not None)])[0] > 0

    def _module(self) -> nn.Module:
        """Return what to call in training: over several processes, the model wrapped to average the gradients."""
        return (
            self.model if self.distributed.world_size == 1 else DdpParallel(self.model, self.distributed.device).module
        )

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _evaluate(self, writer: MetricsWriter | None, console: Console) -> None:
        standing = self.standing
        standing.evaluated = standing.step
        if not self.splits["valid"]:
            standing.best_step = standing.step
            return
        scores = self._scores("valid")
        value, _ = mean_and_deviation([one.of(self.config.evaluate.metric) for one in scores.values()])
        improved = value > standing.best
        if improved:
            standing.best, standing.best_step, standing.without_best = value, standing.step, 0
        else:
            standing.without_best += 1
        if writer is not None:
            figures = {f"valid/{key}_{name}": getattr(one, name) for key, one in scores.items() for name in _SHOWN}
            writer.scalars(standing.step, figures)
            shown = "  ".join(f"{name.partition('/')[2]} {figure:.1f}" for name, figure in figures.items())
            best = "  (best so far)" if improved else ""
            console.message(f"seed {self.seed} step {standing.step} | {shown}{best}")

    def _scores(self, split: str) -> dict[str, Scores]:
        return evaluate(self.model, self.splits[split], self.labels, self.precision, self.distributed)

    def _out_of_patience(self) -> bool:
        patience = self.config.evaluate.patience
        return 0 < patience <= self.standing.without_best

    def _save(self, writer: MetricsWriter | None) -> None:
        standing = self.standing
        if self.distributed.is_main:
            state = {"progress": asdict(standing), "scaler": self.scaler.state_dict()}
            moments = optimizer_tensors(self.optimizer, self.model)  # type: ignore[arg-type]
            self.store.save(standing.step, self.model.state_dict(), moments, state)
            if standing.best_step in self.store.steps():
                self.store.mark_best(standing.best_step, f"valid/{self.config.evaluate.metric.value}", standing.best)
            self.store.prune(standing.step)
        if writer is not None:
            writer.flush()
        self.distributed.all_reduce_sum([0.0])  # nobody goes on before it is on the disk

    def _resume(self) -> None:
        checkpoint = self.store.latest()
        step = checkpoint.state["progress"]["step"] if checkpoint else 0
        self.distributed.assert_same({"step": step}, "checkpoints (the run directory must be on shared storage)")
        if checkpoint is None:
            return
        check_state_dict(self.model, checkpoint.model, str(checkpoint.path))
        self.model.load_state_dict(checkpoint.model)
        load_optimizer_tensors(self.optimizer, self.model, checkpoint.optimizer)  # type: ignore[arg-type]
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.standing = Standing(**checkpoint.state["progress"])
        if self.distributed.is_main:
            log.info("seed %d: resumed from %s", self.seed, checkpoint.path)

    def _result(self) -> dict[str, Any]:
        """The scores of the best weights."""
        best = read_checkpoint(self.store.path(self.standing.best_step), optimizer=False)
        self.model.load_state_dict(best.model)
        return {
            "seed": self.seed,
            "steps": self.standing.step,
            "best_step": self.standing.best_step,
            "seconds": self.standing.seconds,
            "valid": {language: asdict(scores) for language, scores in self._scores("valid").items()},
            "test": {language: asdict(scores) for language, scores in self._scores("test").items()},
        }


_SHOWN = ("accuracy", "f1")
