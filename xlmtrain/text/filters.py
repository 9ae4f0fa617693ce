"""Line filters: the settings of ``clean`` that look at one line, or one pair of lines, at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import regex

from xlmtrain.config.prepare import CleanConfig
from xlmtrain.text.langid import make_langid_filter

LINE_SETTINGS = ("max_length_ratio", "min_latin_fraction", "langid_confidence")
"""Settings that :func:`line_checks` reads."""

REASONS = (
    *("invalid_utf8", "max_chars", "misaligned"),  # while the raw files are sharded
    *LINE_SETTINGS,
    *("empty", "max_tokens"),  # after tokenization
    *("decontaminate", "drop_duplicates", "drop_identical"),  # by comparing tokenized lines
)
"""Reasons for dropping a line, in the order of the checks; the first that applies is counted. All but ``empty`` are
settings of ``clean``, or ``text.max_tokens``."""

_LETTER = regex.compile(r"\p{L}")
_LATIN = regex.compile(r"\p{Script=Latin}")

Check = Callable[[Sequence[str]], bool]


def line_checks(clean: CleanConfig, languages: Sequence[str]) -> Iterator[tuple[str, Check]]:
    """Yield (reason, check) for the filters that are on; ``check(sides)`` is true if the line is to be dropped.

    Raises ConfigError if language identification is on but not available.
    """
    if clean.max_length_ratio and len(languages) > 1:
        yield "max_length_ratio", partial(_exceeds_ratio, clean.max_length_ratio)
    if clean.min_latin_fraction:
        yield "min_latin_fraction", partial(_not_latin, clean.min_latin_fraction)
    if clean.langid_confidence:
        filters = [make_langid_filter(language, clean.langid_confidence) for language in languages]
        yield "langid_confidence", lambda sides: any(is_foreign(side) for is_foreign, side in zip(filters, sides))


def _exceeds_ratio(ratio: float, sides: Sequence[str]) -> bool:
    short, long = sorted(len(side.strip()) for side in sides)
    return long > ratio * short > 0  # lines with an empty side are counted as "empty"


def _not_latin(fraction: float, sides: Sequence[str]) -> bool:
    for side in sides:
        if not side.isascii():
            letters = len(_LETTER.findall(side))
            if letters and len(_LATIN.findall(side)) < fraction * letters:
                return True
    return False
