"""A run beside an earlier one of its preset: found to be far behind only where the two can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmtrain.data.format import Header
from xlmtrain.diagnostics.baseline import ReferenceCurve, compare_to_baseline, settings_that_matter
from xlmtrain.diagnostics.finding import Finding, Severity

TOKENS = 20_000  # of a record
Changed = tuple[str, Any, Any]
"""Setting, the preset's value, the run's; None for a setting that the run does not have."""


def learning(tokens: float) -> float:
    return 2.0 + 5.0 * math.exp(-tokens / 400_000)


@pytest.fixture
def text(tiny_dataset: Path) -> Header:
    return Header.read(tiny_dataset)


@pytest.fixture
def past(text: Header) -> ReferenceCurve:
    xs = range(0, 2_000_001, 50_000)
    curves = {
        "train/mlm_loss": [[x, learning(x)] for x in xs],
        "valid/mlm_ppl": [[x, math.exp(learning(x))] for x in xs],
    }
    return ReferenceCurve(
        "small_cpu", "", "short lines", text.fingerprint_of("train"), text.fingerprint_of("valid"), {}, curves
    )


def run(
    loss: Callable[[float], float], count: int = 50, what: str = "train", seed: int = 0, objective: str = "mlm"
) -> list[dict[str, Any]]:
    noise = np.random.default_rng(seed).normal(0, 0.1, count)
    records: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        tokens = number * TOKENS
        value = loss(tokens) + noise[number - 1]
        records.append({"step": number, "progress/tokens": tokens, "train/loss": value})
        if what == "train":
            records[-1][f"train/{objective}_loss"] = value
        else:
            records.append({"step": number, f"valid/{objective}_ppl": math.exp(value)})
    return records


def compared(
    records: list[dict[str, Any]],
    past: ReferenceCurve,
    changed: list[Changed],
    header: Header,
    causes: Sequence[str] = (),
) -> list[Finding]:
    past = replace(past, settings=settings_that_matter({key: old for key, old, _ in changed}))
    settings = {key: new for key, _, new in changed if new is not None}
    return list(compare_to_baseline(records, past, settings, header, causes))


@pytest.mark.parametrize("what", ["train", "valid"])
def test_as_good_as_the_preset_or_better_at_any_time(text: Header, past: ReferenceCurve, what: str) -> None:
    for seed in range(3):
        for loss in (learning, lambda tokens: learning(1.3 * tokens), lambda tokens: learning(tokens / 1.3)):
            records = run(loss, what=what, seed=seed)
            assert [compared(records[:count], past, [], text) for count in range(len(records))] == [[]] * len(records)


@pytest.mark.parametrize(("what", "kind"), [("train", "training"), ("valid", "validation")])
def test_far_behind(text: Header, past: ReferenceCurve, what: str, kind: str) -> None:
    (finding,) = compared(run(lambda tokens: learning(tokens / 4), what=what), past, [], text)
    assert finding.severity is Severity.error
    assert finding.what.startswith(f"Far behind the preset small_cpu: the MLM {kind} loss is 4.")
    assert f"after 1,000,000 tokens, where the preset's own run had {learning(1e6):.2f}, and 4." in finding.what
    reached = float(finding.what.rstrip(".").rpartition(" after ")[2].replace(",", ""))
    assert 200_000 < reached < 300_000  # a fourth of the tokens
    assert finding.causes == [
        "no setting that matters differs: bad luck (try another seed), or a change of the program"
    ]


def test_never_as_low_as_the_preset_at_its_start(text: Header, past: ReferenceCurve) -> None:
    for first in (0, 1):  # the reference may begin later
        late = replace(past, curves={"train/mlm_loss": past.curves["train/mlm_loss"][first:]})
        (finding,) = compared(run(lambda tokens: 9.0), late, [], text)
        assert finding.what.endswith(f"the preset's own run had {learning(1e6):.2f}.")


def test_still_above_the_end_of_a_short_reference(text: Header, past: ReferenceCurve) -> None:
    short = replace(past, curves={"train/mlm_loss": past.curves["train/mlm_loss"][:8]})
    assert compared(run(lambda tokens: 6.5), short, [], text)
    assert compared(run(lambda tokens: 4.0), short, [], text) == []


def test_the_settings_that_differ_are_causes(text: Header, past: ReferenceCurve) -> None:
    changed = [
        ("evaluate.every", 900, 450),
        ("model.dropout", 0.0, 0.1),
        ("optim.lr", 0.003, 0.09),
        ("optim.new", 1, None),
        ("train.batch_tokens", 1024, 8192),
        ("train.log_every", 100, 10),
    ]
    (finding,) = compared(run(lambda tokens: 6.5), past, changed, text, ["optim.lr=0.09 is high"])
    assert finding.causes == [
        "optim.lr=0.09 is high",
        "model.dropout=0.1 (the preset: 0.0)",
        "train.batch_tokens=8192 (the preset: 1024)",
    ]


def test_nothing_is_said_where_losses_do_not_compare(text: Header, past: ReferenceCurve) -> None:
    stuck = run(lambda tokens: 6.5)
    assert compared(stuck, past, [], text)
    assert compared(stuck, replace(past, trained_on="x"), [], text) == []
    assert compared(stuck, past, [("mask.inverse_frequency_exponent", 0.0, 0.5)], text) == []
    assert compared(run(lambda tokens: 6.5, objective="clm"), past, [], text) == []


def test_other_training_text_is_judged_by_the_same_validation_text(text: Header, past: ReferenceCurve) -> None:
    other = replace(past, trained_on="x")
    assert compared(run(lambda tokens: 6.5, what="valid"), replace(other, judged_on="y"), [], text) == []
    (finding,) = compared(run(lambda tokens: 6.5, what="valid"), other, [], text)
    assert finding.causes == ["the training text is not what the preset's run had (short lines)"]
