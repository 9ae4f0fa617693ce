"""Figures collected between two lines of metrics."""

from __future__ import annotations

import time


class StepTimer:
    """Seconds spent in training steps, and of those the seconds spent waiting for data.

    Evaluation and saving are not in it: the clock is read at the start and the end of each step, and never runs
    backwards.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new stretch."""
        self.seconds = self.waiting = 0.0
        self.tokens = self.positions = self.targets = 0.0
        self.resume()

    def resume(self) -> None:
        """The time from now on counts."""
        self._mark = time.monotonic()

    def data_ready(self) -> None:
        """The time since the mark was spent waiting for data."""
        now = time.monotonic()
        self.waiting += now - self._mark
        self.seconds += now - self._mark
        self._mark = now

    def step_done(self, tokens: float, positions: float, targets: float) -> None:
        """A step on so many ``tokens``, of ``positions`` with padding, that predicted ``targets``."""
        now = time.monotonic()
        self.seconds += now - self._mark
        self._mark = now
        self.tokens += tokens
        self.positions += positions
        self.targets += targets


def duration(seconds: float) -> str:
    """``1:02:03``; ``-`` for what is not known."""
    if not 0 <= seconds < 1e9:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
