"""Accuracy and F1, against scikit-learn; mean and deviation; the table."""

from __future__ import annotations

import numpy as np
import pytest

from xlmtrain.finetune.scores import Scores, mean_and_deviation, result_table, scores_of


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_scikit_learns(seed: int) -> None:
    """On labels that are rare, never said, or never there."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    truth = rng.choice(6, size=80, p=[0.5, 0.3, 0.1, 0.06, 0.04, 0.0])
    said = np.where(rng.random(80) < 0.6, truth, rng.choice([0, 1, 2, 5], size=80))
    confusion = metrics.confusion_matrix(truth, said, labels=range(6))
    scores = scores_of(confusion)
    assert scores.accuracy == pytest.approx(100 * metrics.accuracy_score(truth, said))
    assert scores.f1 == pytest.approx(100 * metrics.f1_score(truth, said, average="macro"))
    assert scores.majority == pytest.approx(100 * np.bincount(truth).max() / 80)
    assert scores.confusion == confusion.tolist()


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([50.0, 60.0, 70.0]) == (60.0, 10.0)
    assert mean_and_deviation([50.0]) == (50.0, None)


def test_the_table_says_what_is_zero_shot() -> None:
    def one(accuracy: float) -> Scores:
        return Scores(accuracy, accuracy / 2, 25.0, [[2, 1], [0, 1]])

    lines = [line.split("  ") for line in result_table({"en": [one(50.0)], "de": [one(40.0), one(50.0)]}, ["en"])]
    english, german = ([cell.strip() for cell in line if cell] for line in lines[1:])
    assert english == ["en", "4", "50.0", "25.0", "25.0"]
    assert german == ["de (zero-shot)", "4", "45.0 ± 7.1", "22.5 ± 3.5", "25.0"]
