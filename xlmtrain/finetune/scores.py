"""Accuracy and F1 of a classifier, from its confusion matrix."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from xlmtrain.config.finetune import SelectionMetric
from xlmtrain.config.schema import Precision
from xlmtrain.evaluate.classification_data import Encoded
from xlmtrain.finetune.batches import evaluation_batches
from xlmtrain.finetune.classifier import Classifier
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import autocast


@dataclass(frozen=True)
class Scores:
    """Scores of one language, in %. ``confusion`` (C, C): counts by true label (row) and predicted label (column).

    ``f1`` is the macro mean over the labels that occur, as truth or as prediction. ``majority``: accuracy of
    always predicting the most frequent label.
    """

    accuracy: float
    f1: float
    majority: float
    confusion: list[list[int]]

    def of(self, score: SelectionMetric) -> float:
        """Return the score named ``score``."""
        return self.accuracy if score is SelectionMetric.accuracy else self.f1


def scores_of(confusion: np.ndarray) -> Scores:
    """Return the scores of counts (C, C), true labels by row."""
    right, gold, pred = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurring = gold + pred > 0
    f1 = 2 * right[occurring] / (gold + pred)[occurring]
    total = confusion.sum()
    return Scores(
        accuracy=100.0 * float(right.sum() / total),
        f1=100.0 * float(f1.mean()),
        majority=100.0 * float(gold.max() / total),
        confusion=confusion.astype(int).tolist(),
    )


@torch.no_grad()
def evaluate(
    model: Classifier, files: Mapping[str, Encoded], labels: int, precision: Precision, distributed: Distributed
) -> dict[str, Scores]:
    """Return language -> scores. Collective: the batches are split across the processes."""
    was_training = model.training
    model.eval()
    result = {}
    for language, file in files.items():
        counts = distributed.run_on_all(partial(_count, model, file, labels, precision, distributed))
        result[language] = scores_of(np.array(distributed.all_reduce_sum(counts.tolist())).reshape(labels, labels))
    model.train(was_training)
    return result


def _count(
    model: Classifier, file: Encoded, labels: int, precision: Precision, distributed: Distributed
) -> torch.Tensor:
    """Return the flat confusion matrix (labels * labels,) of this process's batches."""
    counts = torch.zeros(labels * labels, dtype=torch.float64)
    for batch in evaluation_batches(file, distributed.rank, distributed.world_size):
        with autocast(precision, distributed.device):
            pred = model.logits(batch.to(distributed.device)).argmax(dim=1).cpu()
        counts += torch.bincount(batch.targets * labels + pred, minlength=labels * labels)
    return counts


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation of the sample (n - 1), None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def result_table(results: Mapping[str, Sequence[Scores]], learned: Sequence[str]) -> Iterator[str]:
    """Yield a line for each language of ``results`` (language -> a score for each seed): mean ± deviation.

    ``learned``: the languages of the training data; the results of the others are zero-shot.
    """
    yield f"{'language':20}{'examples':>10}{'accuracy %':>16}{'macro F1 %':>16}{'most frequent %':>18}"
    for language, scores in results.items():
        name = language if language in learned else f"{language} (zero-shot)"
        cells = (_with_deviation([one.of(score) for one in scores]) for score in SelectionMetric)
        count = sum(map(sum, scores[0].confusion))
        yield f"{name:20}{count:10,}" + "".join(f"{cell:>16}" for cell in cells) + f"{scores[0].majority:18.1f}"


def _with_deviation(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"
