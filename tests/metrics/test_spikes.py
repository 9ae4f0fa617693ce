"""A loss spike is found, and noise is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xlmtrain.metrics.spikes import MIN_LOSSES, WINDOW, SpikeDetector


def test_far_above_the_last_losses() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        window: list[float] = []
        detector = SpikeDetector(window)
        for loss in rng.normal(4.0, 0.1, size=int(rng.integers(MIN_LOSSES, 300))):
            detector.add(float(loss))
        limit = detector.limit()
        assert limit is not None
        assert 4.3 < limit < 4.9
        assert detector.sigmas(limit) == pytest.approx(6.0)
        assert len(window) <= WINDOW


def test_no_false_alarm_in_ten_thousand_steps() -> None:
    """Losses that fall as in training, with noise that is a little skewed."""
    rng = np.random.default_rng(1)
    detector, alarms = SpikeDetector([]), 0
    for step in range(10_000):
        loss = 2.5 + 8.0 * math.exp(-step / 500) + rng.gamma(16.0, 0.0125)
        limit = detector.limit()
        alarms += limit is not None and loss > limit
        detector.add(float(loss))
    assert alarms <= 1


def test_too_few_losses_say_nothing() -> None:
    detector = SpikeDetector([])
    for _ in range(MIN_LOSSES):
        assert detector.limit() is None
        detector.add(3.0)
    assert detector.limit() is not None


def test_a_spike_does_not_hide_the_next_but_a_new_level_is_learned() -> None:
    rng = np.random.default_rng(2)
    detector = SpikeDetector([])
    for loss in rng.normal(4.0, 0.1, size=WINDOW):
        detector.add(float(loss))
    before = detector.limit()
    assert before is not None
    detector.add(4000.0)
    detector.add(math.nan)
    detector.add(math.inf)
    after = detector.limit()
    assert after is not None
    assert before < after < 5.5
    for loss in rng.normal(8.0, 0.1, size=2 * WINDOW):
        detector.add(float(loss))
    assert 8.0 < (detector.limit() or 0) < 9.0


def test_equal_losses_are_no_spikes() -> None:
    detector = SpikeDetector([3.0] * WINDOW)
    limit = detector.limit()
    assert limit is not None
    assert 3.0 < limit < 3.001
