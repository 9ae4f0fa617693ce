"""Loss spikes: losses far above those just before them."""

from __future__ import annotations

import math
from statistics import fmean

WINDOW = 128
"""Losses that a new one is compared with, at most,"""
ENOUGH = 32
"""and at least: fewer say too little about how far losses stray."""
SIGMAS = 6.0
"""Standard deviations above the mean at which a loss is a spike."""


class SpikeDetector:
    """Compares each step's loss with the last ones, which ``window`` holds and which are a part of the run's state."""

    def __init__(self, window: list[float]) -> None:
        self._window = window

    def limit(self) -> float | None:
        """The loss above which the next one is a spike; None before there is enough to compare with."""
        if len(self._window) < ENOUGH:
            return None
        mean, sigma = self._mean_and_sigma()
        return mean + SIGMAS * sigma

    def sigmas(self, loss: float) -> float:
        """How many standard deviations ``loss`` is above the mean of the window."""
        mean, sigma = self._mean_and_sigma()
        return (loss - mean) / sigma

    def _mean_and_sigma(self) -> tuple[float, float]:
        mean = fmean(self._window)
        sigma = math.sqrt(fmean((loss - mean) ** 2 for loss in self._window))
        return mean, max(sigma, 1e-6 * abs(mean))  # losses that are all the same would make a spike of any rounding

    def add(self, loss: float) -> None:
        """Remember a loss; a spike as no more than the limit, or it would hide the next one."""
        if not math.isfinite(loss):
            return
        limit = self.limit()
        self._window.append(loss if limit is None else min(loss, limit))
        del self._window[:-WINDOW]
