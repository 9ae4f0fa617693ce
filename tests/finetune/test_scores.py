"""Scores against figures counted by hand; mean and deviation; the table."""

from __future__ import annotations

import numpy as np
import pytest

from xlmtrain.config.finetune import KIND_METRICS, TaskKind
from xlmtrain.finetune.scores import Scores, correlations, entity_f1, f1_scores, mean_and_deviation, result_table


def test_scores_of_labels() -> None:
    """Label 3 never occurs and does not count; label 2 is predicted and never true."""
    gold, said = np.array([0, 0, 0, 1, 1, 0]), np.array([0.0, 0.0, 1.0, 1.0, 2.0, 0.0])
    scores = f1_scores(gold, said, 4, KIND_METRICS[TaskKind.classification])
    assert scores.metrics["accuracy"] == pytest.approx(100 * 4 / 6)
    assert scores.metrics["f1"] == pytest.approx(100 * (6 / 7 + 1 / 2 + 0) / 3)
    assert scores.metrics["matthews"] == pytest.approx(100 * 8 / (16 * 22) ** 0.5)  # Gorodkin 2004
    assert scores.majority == pytest.approx(100 * 4 / 6)
    assert scores.confusion == [[3, 1, 0, 0], [0, 1, 1, 0], [0] * 4, [0] * 4]


def test_scores_of_several_labels() -> None:
    gold, said = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]]), np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0]])
    scores = f1_scores(gold, said, 3, KIND_METRICS[TaskKind.multilabel])
    assert scores.metrics == pytest.approx({"f1": 100 * (4 / 5 + 0) / 2, "micro_f1": 100 * 4 / 6, "accuracy": 100 / 3})
    assert scores.majority is None


def test_correlations() -> None:
    scores = correlations(np.array([1.0, 2.0, 3.0, 10.0]), np.array([1.0, 2.0, 4.0, 3.0]))
    assert scores.metrics["spearman"] == pytest.approx(80.0)
    assert scores.metrics["pearson"] == pytest.approx(100 * 7 / (5 * 50) ** 0.5)
    assert correlations(np.arange(3.0), np.ones(3)).metrics == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize(
    ("gold", "said", "expected"),
    [
        ("B-P I-P O B-L", "B-P I-P O B-L", 100.0),
        ("B-P I-P O B-L", "B-P O O B-L", 50.0),  # another end
        ("B-P I-P O B-L", "B-L I-L O B-L", 50.0),  # another kind
        ("B-P B-P", "B-P I-P", 0.0),  # one entity of two words is not two
        ("I-P I-P O I-L", "B-P I-P O B-L", 100.0),  # IOB1
        ("B-P I-L", "B-P B-L", 100.0),
        ("O O", "O O", 0.0),
    ],
)
def test_entities(gold: str, said: str, expected: float) -> None:
    assert entity_f1([gold.split()], [said.split()]) == pytest.approx(expected)


def test_entities_end_with_the_sentence() -> None:
    assert entity_f1([["B-P"], ["I-P"]], [["B-P"], ["B-P"]]) == 100.0


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([50.0, 60.0, 70.0]) == (60.0, 10.0)
    assert mean_and_deviation([50.0]) == (50.0, None)


def test_the_table_says_what_is_zero_shot() -> None:
    def one(accuracy: float) -> Scores:
        return Scores(4, {"accuracy": accuracy, "f1": accuracy / 2}, 25.0)

    header, *lines = (
        [cell.strip() for cell in line.split("  ") if cell]
        for line in result_table({"en": [one(50.0)], "de": [one(40.0), one(50.0)]}, ["en"])
    )
    assert header == ["language", "examples", "accuracy %", "macro F1 %", "most frequent %"]
    assert lines == [
        ["en", "4", "50.0", "25.0", "25.0"],
        ["de (zero-shot)", "4", "45.0 ± 7.1", "22.5 ± 3.5", "25.0"],
    ]
