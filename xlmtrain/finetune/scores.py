"""Accuracy and F1 of a classifier, from its confusion matrix."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
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
from xlmtrain.runtime.precision import autocast, eval_mode


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


def evaluate_classifier(
    model: Classifier,
    files: Mapping[str, Encoded],
    num_labels: int,
    precision: Precision,
    distributed: Distributed,
    report_progress: Callable[[], None],
) -> dict[str, Scores]:
    """Return language -> scores. Collective: the batches are split across the processes.

    ``report_progress``: called before every batch.
    """
    device = distributed.device

    def count(file: Encoded) -> torch.Tensor:
        # The flat confusion matrix (C * C,) of this process's batches.
        counts = torch.zeros(num_labels**2, dtype=torch.float64)
        for batch in evaluation_batches(file, distributed.rank, distributed.world_size):
            report_progress()
            with eval_mode(model), autocast(precision, device):
                pred = model.logits(batch.to(device)).argmax(dim=1).cpu()
            counts += torch.bincount(batch.targets * num_labels + pred, minlength=num_labels**2)
        return counts

    result = {}
    for language, file in files.items():
        counts = distributed.run_on_all(partial(count, file))
        total = np.array(distributed.all_reduce_sum(counts.tolist()))
        result[language] = scores_of(total.reshape(num_labels, num_labels))
    return result


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation of the sample (n - 1), None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def result_table(results: Mapping[str, Sequence[Scores]], train_languages: Sequence[str]) -> list[str]:
    """Return a header and a line for each language of ``results``, a score for each seed: mean ± deviation.

    ``train_languages``: the languages of the training data; the results of the others are zero-shot.
    """
    lines = [f"{'language':20}{'examples':>10}{'accuracy %':>16}{'macro F1 %':>16}{'most frequent %':>18}"]
    for language, scores in results.items():
        name = language if language in train_languages else f"{language} (zero-shot)"
        line = f"{name:20}{sum(map(sum, scores[0].confusion)):10,}"
        for score in SelectionMetric:
            mean, deviation = mean_and_deviation([one.of(score) for one in scores])
            cell = f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"
            line += f"{cell:>16}"
        lines.append(f"{line}{scores[0].majority:18.1f}")
    return lines
