"""Step timer: compute and data-wait seconds between two records of metrics."""

from __future__ import annotations

import time


class StepTimer:
    """Measures the seconds spent in training steps, and those of them spent waiting for data; ``generating``: those
    spent on translating, which MetricsLog adds.

    Evaluation and saving are not included: the monotonic clock is read at the start and the end of each step.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set all counters to zero and start the clock."""
        self.seconds = self.waiting = self.generating = 0.0
        self.tokens = self.positions = self.targets = 0.0
        self.resume()

    def resume(self) -> None:
        """Start the clock."""
        self._mark = time.monotonic()

    def data_ready(self) -> None:
        """Count the time since the last call as waiting for data."""
        self.waiting += self._lap()

    def step_done(self, tokens: float, positions: float, targets: float) -> None:
        """Count the time since the last call, ``tokens``, ``positions`` (with padding) and ``targets`` of a step."""
        self._lap()
        self.tokens += tokens
        self.positions += positions
        self.targets += targets

    def _lap(self) -> float:
        """Count and return the seconds since the last call."""
        now = time.monotonic()
        passed, self._mark = now - self._mark, now
        self.seconds += passed
        return passed


def duration(seconds: float) -> str:
    """Return seconds as ``1:02:03``, or ``-`` if they are negative or huge."""
    if not 0 <= seconds < 1e9:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
