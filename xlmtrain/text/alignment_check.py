"""Check the line alignment of the two sides of a pair, some hundred lines at a time.

A long sentence has a long translation. Where one side lost a line, the lengths of both sides match better when one side
is shifted by a line. A cumulative sum of the improvement (Page 1954, *Continuous inspection schemes*) detects that and
locates its start. If the two files were swapped, each is in the other's language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlmtrain.text.langid import detected_language

_SHIFTS = (1, -1, 2, -2, 3, -3)
# Subtracted from the evidence of every line (a difference of two log ratios), so that noise does not add up.
_DRIFT = 0.1
# Evidence that counts as a shift: 50 to 200 lines of ordinary text. Half a million good pairs stay below 4; 70 pairs
# that really are shifted reach 28.
_THRESHOLD = 30.0


def first_mismatch(
    lines: Sequence[Sequence[bytes]], languages: Sequence[str], words: Sequence[Mapping[str, int]]
) -> tuple[int, str] | None:
    """Return the approximate index of the first misaligned line, and a description of the fault; None if there is none.

    ``lines``: both sides; ``words``: their :func:`~xlmtrain.text.langid.marker_words`.
    """
    one, other = languages
    if detected_language(one, words[0]) == other and detected_language(other, words[1]) == one:
        return 0, f"this reads like {other}, and the {other} side like {one}: was it swapped with"
    lengths = [np.array([len(line) for line in side], np.int64) for side in lines]
    if found := shifted(lengths[0], lengths[1]):
        return found[0], f"{lines_shifted(found[1])} those of"
    return None


def shifted(one: np.ndarray, other: np.ndarray) -> tuple[int, int] | None:
    """Return the approximate index from which two sides' lengths, (lines,) each in any unit, match better when one side
    is shifted, and by how many lines; None if they do not."""
    left, right = np.log(one + 1.0), np.log(other + 1.0)
    found = {start: shift for shift in _SHIFTS if (start := _shift_begins(left, right, shift)) is not None}
    if not found:
        return None
    start = min(found)
    return start, found[start]


def lines_shifted(shift: int) -> str:
    """Describe a shift."""
    return f"its lines are {abs(shift)} {'ahead of' if shift < 0 else 'behind'}"


def _shift_begins(one: np.ndarray, other: np.ndarray, shift: int) -> int | None:
    """Return the index from which ``one[i]`` matches ``other[i - shift]`` better than ``other[i]``, or None."""
    if len(one) <= abs(shift):
        return None
    places = np.arange(max(shift, 0), len(one) + min(shift, 0))
    evidence = np.abs(one - other)[places] - np.abs(one[places] - other[places - shift]) - _DRIFT
    # Empty lines are no evidence.
    evidence[(one[places] == 0) | (other[places] == 0) | (other[places - shift] == 0)] = 0.0
    total = np.concatenate([[0.0], np.cumsum(evidence)])
    rise = total - np.minimum.accumulate(total)
    if rise.max() < _THRESHOLD:
        return None
    reached = int(np.argmax(rise >= _THRESHOLD))
    return int(places[np.argmin(total[:reached])])
