"""Loss spikes: losses far above those of the steps before."""

from __future__ import annotations

import math
from statistics import fmean

WINDOW = 128
"""Largest number of losses that a new one is compared with."""
MIN_LOSSES = 32
"""Smallest number of losses to compare with; fewer give no reliable deviation."""
SIGMAS = 6.0
"""Standard deviations above the mean at which a loss is a spike."""


class SpikeDetector:
    """Compares the loss of each step with the last ones, kept in ``window``, which is part of the run's state."""

    def __init__(self, window: list[float]) -> None:
        self._window = window

    def limit(self) -> float | None:
        """Return the loss above which the next one is a spike; None before MIN_LOSSES steps."""
        if len(self._window) < MIN_LOSSES:
            return None
        mean, sigma = self._mean_and_sigma()
        return mean + SIGMAS * sigma

    def sigmas(self, loss: float) -> float:
        """Return the standard deviations by which ``loss`` is above the mean of the window."""
        mean, sigma = self._mean_and_sigma()
        return (loss - mean) / sigma

    def _mean_and_sigma(self) -> tuple[float, float]:
        mean = fmean(self._window)
        sigma = math.sqrt(fmean((loss - mean) ** 2 for loss in self._window))
        return mean, max(sigma, 1e-6 * abs(mean))  # for equal losses any rounding would be a spike

    def add(self, loss: float) -> None:
        """Add a loss to the window; a spike counts as the limit, as it would hide the next one otherwise."""
        if not math.isfinite(loss):
            return
        limit = self.limit()
        self._window.append(loss if limit is None else min(loss, limit))
        del self._window[:-WINDOW]
