"""Which raw lines are left out, by the switches of ``clean`` that look at one line, or one pair, at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import regex

from xlmtrain.config.prepare import CleanConfig
from xlmtrain.text.langid import make_langid_filter

REASONS = (
    *("not_utf8", "too_many_chars", "mismatch"),  # found while cutting the raw files
    *("overlap", "duplicate"),  # found by comparing the shards
    *("identical", "ratio", "script", "language"),
    *("empty", "too_long"),  # found after tokenization
)
"""Why a line is dropped, in the order of the checks: the first that applies is counted."""

LINE_SETTINGS = ("drop_identical", "max_length_ratio", "min_latin_fraction", "langid_confidence")
"""The settings that :func:`line_checks` reads."""

_LETTER = regex.compile(r"\p{L}")
_LATIN = regex.compile(r"\p{Script=Latin}")

Check = Callable[[Sequence[str]], bool]


def line_checks(clean: CleanConfig, languages: Sequence[str]) -> Iterator[tuple[str, Check]]:
    """(reason, check) for the switches that are on; a check says of the sides of a line whether it has to go.

    Raises ConfigError if language identification is asked for and not to be had.
    """
    if clean.drop_identical and len(languages) > 1:
        yield "identical", _identical
    if clean.max_length_ratio and len(languages) > 1:
        yield "ratio", partial(_unlike, clean.max_length_ratio)
    if clean.min_latin_fraction:
        yield "script", partial(_not_latin, clean.min_latin_fraction)
    if clean.langid_confidence:
        others = [make_langid_filter(language, clean.langid_confidence) for language in languages]
        yield "language", lambda sides: any(other(side) for other, side in zip(others, sides))


def _identical(sides: Sequence[str]) -> bool:
    return len({side.strip() for side in sides}) == 1


def _unlike(ratio: float, sides: Sequence[str]) -> bool:
    short, long = sorted(len(side.strip()) for side in sides)
    return long > ratio * short > 0  # an empty side is counted as that


def _not_latin(share: float, sides: Sequence[str]) -> bool:
    for side in sides:
        if not side.isascii():
            letters = len(_LETTER.findall(side))
            if letters and len(_LATIN.findall(side)) < share * letters:
                return True
    return False
