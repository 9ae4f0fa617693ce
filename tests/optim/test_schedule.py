"""The learning rate is the original's curve where both have it, and its formula elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.oracle import Oracle
from xlmtrain.config.optim import OptimConfig, Schedule
from xlmtrain.optim.schedule import learning_rate


def options(name: str) -> dict[str, float]:
    """The numbers of the oracle's ``adam_inverse_sqrt,lr=0.0001,...``."""
    return {key: float(value) for key, _, value in (part.partition("=") for part in name.split(",")[1:])}


def traces(oracle: Oracle, kind: str) -> dict[str, list[list[float]]]:
    return {name: trace for name, trace in oracle.numbers["schedules"].items() if name.startswith(kind)}


def test_inverse_sqrt_is_the_oracles(oracle: Oracle) -> None:
    found = traces(oracle, "adam_inverse_sqrt")
    assert len(found) == 2
    for name, trace in found.items():
        given = options(name)
        config = OptimConfig(lr=given["lr"], warmup_steps=int(given.get("warmup_updates", 4000)))
        for step, rate in trace:
            assert learning_rate(config, int(step), 10**6) == pytest.approx(rate, rel=1e-12), (name, step)


def test_cosine_is_the_oracles_first_period(oracle: Oracle) -> None:
    found = traces(oracle, "adam_cosine")
    assert len(found) == 2
    for name, trace in found.items():
        given = options(name)
        warmup, period = int(given["warmup_updates"]), int(given["init_period"])
        config = OptimConfig(
            lr=given["lr"], schedule=Schedule.cosine, warmup_steps=warmup, decay_steps=period, min_lr=1e-9
        )
        first = [(step, rate) for step, rate in trace if step < warmup + period]
        assert len(first) >= 9
        for step, rate in first:
            assert learning_rate(config, int(step), 10**6) == pytest.approx(rate, rel=1e-12), (name, step)


def test_rates_of_the_optimizer_traces(oracle: Oracle) -> None:
    name, rates = next((n, r) for n, r in oracle.numbers["optimizers"].items() if n.startswith("adam_inverse_sqrt"))
    config = OptimConfig(lr=options(name)["lr"], warmup_steps=int(options(name)["warmup_updates"]))
    assert [learning_rate(config, step, 12) for step in range(12)] == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("constant", lambda done: 1.0),
        ("linear", lambda done: 0.1 + 0.9 * (1 - done)),
        ("cosine", lambda done: 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2),
    ],
)
@pytest.mark.parametrize("decay_steps", [0, 50])
def test_formulas(schedule: str, after: Any, decay_steps: int) -> None:
    """Warm-up of 10 steps from 0.2 to 1, then down to 0.1 at the end or within 50 steps, and flat from there."""
    config = OptimConfig(
        lr=1.0, schedule=Schedule(schedule), warmup_steps=10, warmup_init_lr=0.2, min_lr=0.1, decay_steps=decay_steps
    )
    for step in range(10):
        assert learning_rate(config, step, 110) == pytest.approx(0.2 + 0.08 * step)
    for step in (10, 11, 30, 59, 60, 61, 109, 110, 500):
        done = min((step - 10) / (decay_steps or 100), 1.0)
        assert learning_rate(config, step, 110) == pytest.approx(after(done)), step


@pytest.mark.parametrize("schedule", list(Schedule))
def test_without_warmup_the_peak_comes_first(schedule: Schedule) -> None:
    config = OptimConfig(lr=0.5, schedule=schedule, warmup_steps=0)
    assert learning_rate(config, 0, 10) == 0.5
