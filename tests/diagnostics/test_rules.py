"""Plateau, divergence, overfitting and inefficiency: found where they are, with causes from the settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xlmtrain.diagnostics.finding import Finding, Severity
from xlmtrain.diagnostics.rules import diagnose, unigram_entropy, warmup_too_long

WELL = {
    "optim.lr": 3e-4,
    "optim.warmup_steps": 4000,
    "optim.clip_grad_norm": 5.0,
    "model.dim": 1024,
    "model.heads": 8,
    "data.sequence_length": 256,
}
ENTROPY = 7.0


def curve(
    loss: Callable[[int], float], norm: float = 1.0, tokens: int = 10_000, count: int = 50
) -> list[dict[str, Any]]:
    """A record every 1,000 steps; ``loss``: of the record's number; ``tokens`` a step."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(1, count + 1):
        value = loss(number) + rng.normal(0, 0.05)
        step = 1000 * number
        record = {"step": step, "train/loss": value, "train/mlm_loss": value, "train/grad_norm": norm}
        records.append({**record, "progress/tokens": step * tokens, "speed/data_wait_share": 0.01})
    return records


def learning(number: int) -> float:
    return 2.0 + 7.0 * math.exp(-number / 15)


def found(records: list[dict[str, Any]], repeated: float | None = None, **changes: Any) -> list[Finding]:
    settings = {**WELL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return diagnose(records, settings, ENTROPY, repeated)


def test_a_run_that_learns_is_left_alone() -> None:
    assert found(curve(learning)) == []
    # Flat at the end because it is done, far below what frequencies give, is no plateau.
    assert found(curve(lambda n: max(learning(n), 2.5))) == []


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"optim__warmup_steps": 0}, "no warm-up to speak of (optim.warmup_steps=0)"),
        ({"optim__lr": 1e-2}, "optim.lr=0.01 is high for a width of 1024"),
        ({"optim__lr": 1e-6}, "optim.lr=1e-06 is low for a width of 1024"),
        ({"model__heads": 32}, "heads of 32"),
        ({"repeated": 0.6}, "60% of the training lines occurred before"),
    ],
)
def test_stuck_near_seven(changes: dict[str, Any], cause: str) -> None:
    """The notorious one, with its cause and no other."""
    (finding,) = found(curve(lambda n: 6.9 + 3 * math.exp(-n)), **changes)
    assert finding.severity is Severity.error
    assert finding.what.startswith("The MLM loss is stuck near ")
    assert len(finding.causes) == 1
    assert finding.causes[0].startswith(cause)


def test_stuck_on_long_sequences_early() -> None:
    (finding,) = found(curve(lambda n: 6.9, tokens=100))
    assert [cause[:32] for cause in finding.causes] == ["long sequences for so little tex"]
    (finding,) = found(curve(lambda n: 6.9, tokens=100), model__family="modernbert")  # no position has to be learned
    assert not [cause for cause in finding.causes if cause.startswith("long sequences")]


def test_slow_is_not_stuck() -> None:
    assert found(curve(lambda n: 8.0 - 0.03 * n)) == []


def test_divergence_is_not_called_a_plateau() -> None:
    (finding,) = found(curve(lambda n: learning(n) if n < 30 else 7.2), optim__lr=1e-2)
    assert "diverged" in finding.what
    assert finding.causes[0].startswith("optim.lr=0.01 is high")
    (mild,) = found(curve(lambda n: learning(n) if n < 30 else 7.2))
    assert "try optim.lr=1.0e-04" in mild.causes[0]


def test_overfitting() -> None:
    records = curve(learning)
    for step, value in ((10_000, 50.0), (20_000, 30.0), (40_000, 45.0)):
        records.append({"step": step, "valid/mlm_ppl": value})
    records.sort(key=lambda record: record["step"])
    (finding,) = found(records)
    assert finding.what.startswith("Overfitting: valid/mlm_ppl was 30.0 at step 20,000 and is 45.0 now")
    assert finding.severity is Severity.warning
    records[-1] = {**records[-1], "train/loss": 9.0}  # not overfitting if the training loss rose, too
    assert not any("Overfitting" in one.what for one in found(records))


def test_inefficiency() -> None:
    assert "clipped at nearly every step" in found(curve(learning, norm=9.0))[0].what
    slow = [{**record, "speed/data_wait_share": 0.3} for record in curve(learning)]
    assert "waiting for data" in found(slow)[0].what
    skipping = [{**record, "train/skipped_steps": record["step"] // 10} for record in curve(learning)]
    assert "5,000 of 50,000 steps were skipped" in found(skipping)[0].what


def test_nothing_is_said_of_few_records() -> None:
    assert found(curve(lambda n: 6.9, count=5), optim__warmup_steps=0) == []


def test_entropy_of_frequencies() -> None:
    assert unigram_entropy(np.array([0, 5, 5])) == pytest.approx(math.log(2))
    counts = np.array([0, 400, 100])
    assert unigram_entropy(counts) == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.2))
    # Masking that prefers rare words makes them more frequent among those to predict: 20 to 10.
    assert unigram_entropy(counts, 0.5) == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    assert unigram_entropy(counts, 1.0) == pytest.approx(math.log(2))


def test_rare_words_are_harder_which_is_no_plateau() -> None:
    counts = np.array([100_000 // rank for rank in range(1, 4000)])
    plain, rare = unigram_entropy(counts), unigram_entropy(counts, 0.5)
    level = 0.8 * rare
    assert 0.85 * plain < level
    run = curve(lambda n: level)
    assert any("is stuck" in finding.what for finding in diagnose(run, WELL, plain))
    assert diagnose(run, WELL, rare) == []


@pytest.mark.parametrize(
    ("parallel", "changes", "cause"),
    [
        (12.0, {}, "no pairs are trained on: data.tlm={de-en: 1}"),
        (12.0, {"data__tlm__de-en": 0.0}, "no pairs are trained on"),
        (12.0, {"data__tlm__de-en": 1.0}, "too short a training so far: 50,000 steps"),
        (35.0, {"data__tlm__de-en": 1.0}, None),
    ],
)
def test_no_transfer(parallel: float, changes: dict[str, Any], cause: str | None) -> None:
    records = curve(learning)
    records.append({"step": 50_000, "valid/cloze_parallel_acc": parallel, "valid/cloze_mono_acc": 20.0})
    findings = found(records, **changes)
    assert [finding.severity for finding in findings] == [Severity.warning] * (cause is not None)
    if cause is not None:
        assert "masked-word accuracy is 12.0 % with the translation in view, 20.0 % without" in findings[0].what
        assert cause in findings[0].causes[0]


def test_no_transfer_is_expected_on_the_plateau() -> None:
    records = curve(lambda n: 6.9)
    records.append({"step": 50_000, "valid/cloze_parallel_acc": 5.0, "valid/cloze_mono_acc": 5.0})
    assert not any("no cross-lingual transfer" in finding.what for finding in found(records))


@pytest.mark.parametrize(
    ("steps", "advice"), [(1, "train for more steps"), (9, "train for more steps"), (30, "3 is usual")]
)
def test_a_warmup_is_not_advised_to_stay_as_it_is(steps: int, advice: str) -> None:
    (finding,) = warmup_too_long(steps, steps)
    assert finding.what.endswith(advice)
    assert f"{steps} is usual" not in finding.what
