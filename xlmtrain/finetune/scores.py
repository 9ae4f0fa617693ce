"""What a classifier is worth, from how often each label was taken for each."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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
    """Of one language, in %. ``confusion`` (C, C): how often the label of the row was taken for that of the column.

    ``f1`` is the mean over the labels that occur, as truth or as prediction. ``majority``: the accuracy of always
    saying what is most frequent.
    """

    accuracy: float
    f1: float
    majority: float
    confusion: list[list[int]]

    def of(self, score: SelectionMetric) -> float:
        """One of them."""
        return self.accuracy if score is SelectionMetric.accuracy else self.f1


def scores_of(confusion: np.ndarray) -> Scores:
    """From counts (C, C), truth by row."""
    right, truth, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurring = truth + said > 0
    f1 = 2 * right[occurring] / (truth + said)[occurring]
    total = confusion.sum()
    return Scores(
        accuracy=100.0 * float(right.sum() / total),
        f1=100.0 * float(f1.mean()),
        majority=100.0 * float(truth.max() / total),
        confusion=confusion.astype(int).tolist(),
    )


@torch.no_grad()
def evaluate(
    model: Classifier, files: Mapping[str, Encoded], labels: int, precision: Precision, distributed: Distributed
) -> dict[str, Scores]:
    """Language -> scores, the batches shared out over the processes."""
    was_training = model.training
    model.eval()
    result = {}
    for language, file in files.items():
        counts = torch.zeros(labels * labels, dtype=torch.float64)
        for batch in evaluation_batches(file, distributed.rank, distributed.world_size):
            with autocast(precision, distributed.device):
                said = model.logits(batch.to(distributed.device)).argmax(dim=1).cpu()
            counts += torch.bincount(batch.targets * labels + said, minlength=labels * labels)
        result[language] = scores_of(np.array(distributed.all_reduce_sum(counts.tolist())).reshape(labels, labels))
    model.train(was_training)
    return result


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the sample's standard deviation (n - 1), which one value has not."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def result_table(results: Mapping[str, Sequence[Scores]], learned: Sequence[str]) -> Iterator[str]:
    """A line for each language of ``results`` (language -> a score for each seed): mean ± deviation over the seeds.

    ``learned``: the languages that were learned from; the others' results are zero-shot.
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
