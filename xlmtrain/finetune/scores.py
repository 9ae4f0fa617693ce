"""Scores of a fine-tuned model, by scikit-learn and SciPy."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xlmtrain.config.finetune import SelectionMetric
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.classification_data import language_of

try:
    import scipy.stats as scipy_stats
    import sklearn.metrics as sklearn_metrics
except ImportError:
    scipy_stats = sklearn_metrics = None


@dataclass(frozen=True)
class Scores:
    """Scores of one language: ``metrics`` by name, in %. ``targets``: their number M.

    ``majority``: accuracy in % of always predicting the most frequent label, None where there is no such thing.
    ``confusion`` (C, C): counts by true label (row) and predicted label (column), of a classification.
    """

    targets: int
    metrics: dict[str, float]
    majority: float | None = None
    confusion: list[list[int]] | None = None

    def of(self, metric: SelectionMetric) -> float:
        """Return one metric."""
        return self.metrics[metric.value]


def require_libraries() -> None:
    """Raise ConfigError if scikit-learn or SciPy is not installed."""
    if sklearn_metrics is None:
        raise ConfigError(
            "fine-tuning needs the packages scikit-learn and scipy; install them with: pip install 'xlmtrain[finetune]'"
        )


def f1_scores(gold: np.ndarray, predicted: np.ndarray, labels: int, metrics: Sequence[SelectionMetric]) -> Scores:
    """Return those of ``metrics`` that need no order of the targets.

    ``gold``, ``predicted``: (M,) indices of C = ``labels`` labels, or (M, C) of 0 and 1. ``f1`` is the mean over the
    labels that occur, as truth or as prediction; ``binary_f1`` is left out unless there are two labels.
    """
    gold, predicted, f1_score = gold.astype(int), predicted.astype(int), sklearn_metrics.f1_score
    found: dict[SelectionMetric, Any] = {
        SelectionMetric.accuracy: sklearn_metrics.accuracy_score,
        SelectionMetric.f1: lambda y, x: f1_score(*_occurring(y, x), average="macro", zero_division=0.0),
        SelectionMetric.micro_f1: lambda y, x: f1_score(y, x, average="micro", zero_division=0.0),
        SelectionMetric.binary_f1: lambda y, x: f1_score(y, x, average="binary", zero_division=0.0),
        SelectionMetric.matthews: sklearn_metrics.matthews_corrcoef,
    }
    if labels != 2 or gold.ndim > 1:
        del found[SelectionMetric.binary_f1]
    values = {metric.value: 100.0 * float(found[metric](gold, predicted)) for metric in metrics if metric in found}
    if gold.ndim > 1:
        return Scores(len(gold), values)
    majority = 100.0 * float(np.unique(gold, return_counts=True)[1].max() / len(gold))
    confusion = sklearn_metrics.confusion_matrix(gold, predicted, labels=range(labels))
    return Scores(len(gold), values, majority, confusion.tolist())


def _occurring(gold: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out the columns of labels that neither side has."""
    if gold.ndim == 1:
        return gold, predicted
    used = gold.any(axis=0) | predicted.any(axis=0)
    return gold[:, used], predicted[:, used]


def correlations(gold: np.ndarray, predicted: np.ndarray) -> Scores:
    """Return Pearson's and Spearman's correlation, 0 if one side is constant."""
    if len(gold) < 2 or np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return Scores(len(gold), {"pearson": 0.0, "spearman": 0.0})
    kinds = {"pearson": scipy_stats.pearsonr, "spearman": scipy_stats.spearmanr}
    return Scores(len(gold), {name: 100.0 * float(kind(gold, predicted).statistic) for name, kind in kinds.items()})


def entity_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Return F1 in % over entities, which are right if kind, beginning and end are (Tjong Kim Sang & De Meulder 2003).

    Arguments: the tags of each sentence. ``I-`` begins an entity where it continues none, as in IOB1.
    """
    wanted, found = (
        {(n, *entity) for n, tags in enumerate(side) for entity in entity_spans(tags)} for side in (gold, predicted)
    )
    total = len(wanted) + len(found)
    return 200.0 * len(wanted & found) / total if total else 0.0


def entity_spans(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, first, place behind the last) of neighbouring tags of one kind, but not of ``O``.

    ``B-`` begins an entity; a tag without ``B-`` and ``I-`` is its own kind.
    """
    kind, start = "O", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, this = (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") else ("I", tag)
        if mark == "B" or this != kind:
            if kind != "O":
                yield kind, start, place
            kind, start = this, place


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation of the sample (n - 1), None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


_TITLES = {
    "accuracy": "accuracy %",
    "f1": "macro F1 %",
    "micro_f1": "micro F1 %",
    "binary_f1": "binary F1 %",
    "matthews": "Matthews %",
    "pearson": "Pearson %",
    "spearman": "Spearman %",
    "entity_f1": "entity F1 %",
}


def result_table(results: Mapping[str, Sequence[Scores]], train_languages: Sequence[str]) -> list[str]:
    """Return a header and a line for each language of ``results``, a score for each seed: mean ± deviation.

    ``train_languages``: the languages of the training data; the results of the others are zero-shot.
    """
    names = list(next(iter(results.values()))[0].metrics)
    lines = [f"{'language':20}{'examples':>10}" + "".join(f"{_TITLES[name]:>16}" for name in names)]
    if any(scores[0].majority is not None for scores in results.values()):
        lines[0] += f"{'most frequent %':>18}"
    for language, scores in results.items():
        name = language if language_of(language) in train_languages else f"{language} (zero-shot)"
        line = f"{name:20}{scores[0].targets:10,}"
        for metric in names:
            mean, deviation = mean_and_deviation([seed.metrics[metric] for seed in scores])
            cell = f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"
            line += f"{cell:>16}"
        lines.append(line if scores[0].majority is None else f"{line}{scores[0].majority:18.1f}")
    return lines
