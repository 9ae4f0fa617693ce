"""Speeds of this package beside those of another program at the same work, and their table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

_COLUMNS = ("work", "per CPU-second", "ours", "peer", "its speed", "ours / its")


@dataclass(frozen=True)
class Comparison:
    """Speeds at some ``work`` in ``unit`` per CPU-second, one of ours and one of the ``peer`` for each round.

    ``unit`` may be any, but is the same for both. Both took turns in one run.
    """

    work: str
    unit: str
    ours: Sequence[float]
    peer: str
    theirs: Sequence[float]

    @property
    def ratio(self) -> str:
        """Return how many times as fast ours is: median of the rounds, smallest and largest."""
        ratios = [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]
        return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def print_comparisons(comparisons: Iterable[Comparison]) -> None:
    """Print a Markdown table with a row for each comparison, as soon as it is there."""
    for number, made in enumerate(comparisons):
        if number == 0:
            print(f"| {' | '.join(_COLUMNS)} |\n| --- | --- | ---: | --- | ---: | ---: |", flush=True)
        cells = (
            made.work,
            made.unit,
            _figures(median(made.ours)),
            made.peer,
            _figures(median(made.theirs)),
            made.ratio,
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def _figures(speed: float) -> str:
    """Return a positive number with at least three figures."""
    return f"{speed:,.{max(0, 2 - math.floor(math.log10(speed)))}f}"
