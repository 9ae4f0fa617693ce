"""Numbers that change during training: piecewise-linear functions of the step, written as in the original XLM.

``0:1,100000:0.1,300000:0`` is 1 at step 0, falls linearly to 0.1 at step 100,000 and to 0 at 300,000, and stays there.
``0.5`` is 0.5 throughout. Steps begin with 0 and rise; values are not negative.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np


def parse_points(text: str) -> list[tuple[int, float]]:
    """Return the points (step, value) of a function. Raises ValueError for text that is none."""
    parts = [part.split(":", 1) for part in text.split(",")] if ":" in text else [["0", text]]
    points = [(int(step), float(value)) for step, value in parts]
    if points[0][0] != 0 or any(after <= step for (step, _), (after, _) in pairwise(points)):
        raise ValueError("its steps do not rise from 0")
    if not all(0 <= value < math.inf for _, value in points):
        raise ValueError("it has a value that is negative or not finite")
    return points


def value_at(text: str, step: int) -> float:
    """Return the value of a function at ``step``."""
    steps, values = zip(*parse_points(text))
    return float(np.interp(step, steps, values))
