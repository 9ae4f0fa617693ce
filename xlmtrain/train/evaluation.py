"""Evaluation during training: when it is due, what counts as the best, and sample predictions to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from xlmtrain.config.data import OBJECTIVES
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.metrics.loggers import MetricsWriter
from xlmtrain.metrics.table import decimals
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.oom import evaluation_advice, explain_oom
from xlmtrain.train.state import TrainState
from xlmtrain.train.step import TrainStep

# What a person reads while a run trains; metrics.jsonl has all.
_TRANSFER = ("cloze_parallel_acc", "retrieval_acc", "zero_shot_acc", "mt_bleu", "round_trip_bleu")
_HEADLINE = {*(f"{objective}_ppl" for objective in OBJECTIVES), *_TRANSFER}


class Evaluator(Protocol):
    """Computes the validation metrics of a model. Collective."""

    def __call__(
        self, model: LanguageModel, precision: Precision, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """Return the metrics by name, the same on every process.

        ``stop`` is called before every batch; if it returns True on any process, all of them raise Interrupted.
        """

    def samples(self, model: LanguageModel, precision: Precision, distributed: Distributed) -> dict[str, str]:
        """Return masked sentences with the model's predictions, and translations: name -> Markdown."""


@dataclass
class PeriodicEvaluation:
    """Runs ``evaluator`` when it is due, writes its metrics and keeps the best value in ``state``.

    ``evaluator``: None without validation text. ``writer``: None on all processes but the main one.
    """

    config: Config
    evaluator: Evaluator | None
    step: TrainStep
    state: TrainState
    writer: MetricsWriter | None

    def is_due(self) -> bool:
        """Return True at the first step, the last of a phase, and every ``evaluate.every`` steps, once per step."""
        step, every = self.state.step, self.config.evaluate.every
        due = step in (0, *(phase.span.end for phase in self.step.phases)) or (every > 0 and step % every == 0)
        return self.evaluator is not None and due and self.state.evaluated != step

    @torch.compiler.set_stance("force_eager")  # its many shapes would exceed the recompilation limit of a block
    def run(self, stop: Callable[[], bool]) -> bool:
        """Evaluate. Returns True if the selection metric is the best so far. Collective.

        Raises Interrupted if ``stop`` returned True on any process, DeviceOutOfMemory with the setting that helps.
        """
        evaluator, precision, parallel = self.evaluator, self.step.precision, self.step.parallel
        distributed = replace(self.step.distributed, lockstep=parallel.lockstep)
        assert evaluator is not None, "no evaluation is due"
        takes_part = distributed.is_main or distributed.lockstep
        with explain_oom(*evaluation_advice(self.config)):
            averaged = self._averaged_metrics(evaluator, distributed, stop)
        with explain_oom(*evaluation_advice(self.config)), parallel.evaluation():
            metrics = evaluator(self.step.model, precision, distributed, stop)
            samples = distributed.run_on_all(
                lambda: evaluator.samples(self.step.model, precision, distributed) if takes_part else {}
            )
        name, step = self.config.evaluate.metric, self.state.step
        improved = self.state.add_evaluation(metrics[name], rising=name.endswith(("_acc", "_bleu")))
        if self.writer is not None:
            self.writer.scalars(step, metrics | averaged)
            for key, text in samples.items():
                self.writer.text(step, f"samples/{key}", text)
            self.writer.console.message(f"step {step} | {headline(metrics | averaged, name)}{' | best' * improved}")
        return improved

    def _averaged_metrics(
        self, evaluator: Evaluator, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """Return the validation metrics of the averaged weights as ``average/...``; empty without an average."""
        if not self.step.average.values:
            return {}
        with self.step.average.swapped(), self.step.parallel.evaluation():
            metrics = evaluator(self.step.model, self.step.precision, distributed, stop)
        return {f"average/{key[6:]}": value for key, value in metrics.items() if key.startswith("valid/")}


def headline(metrics: Mapping[str, float], chosen: str) -> str:
    """Return the metric ``chosen`` and the means over the languages of perplexity and transfer, for one short line."""
    shown = {key: value for key, value in metrics.items() if key == chosen or key.partition("/")[2] in _HEADLINE}
    return "  ".join(f"{key.removeprefix('valid/')} {decimals(value)}" for key, value in shown.items())
