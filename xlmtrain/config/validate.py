"""Validation of settings beyond types: ranges are declared with the fields, other problems by the classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from xlmtrain.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Numbers that a setting may have; ``complaint`` about any other follows its value in the message."""

    holds: Callable[[float], bool]
    complaint: str


ABOVE_ZERO = Range(lambda value: value > 0, "is not above 0")
NOT_NEGATIVE = Range(lambda value: value >= 0, "is negative")
SHARE = Range(lambda value: 0 <= value <= 1, "is not between 0 and 1")
SHARE_ABOVE_ZERO = Range(lambda value: 0 < value <= 1, "is not above 0 and at most 1")
SHARE_BELOW_ONE = Range(lambda value: 0 <= value < 1, "is not from 0 to below 1")


def ranged(default: T, allowed: Range) -> T:
    """Return a dataclass field with a default and a range. None is in every range."""
    return field(default=default, metadata={"range": allowed})


class CheckedSettings:
    """Base of a dataclass of settings. Raises ConfigError with all problems in it and its sections when it is made."""

    def __post_init__(self) -> None:
        problems = list(problems_of(self, ""))
        if problems:
            raise ConfigError("wrong settings:\n  " + "\n  ".join(problems))


def problems_of(settings: Any, prefix: str) -> Iterator[str]:
    """Yield every problem of a dataclass, with its key path after ``prefix``.

    A class lists those of several fields in a method ``problems``.
    """
    types = get_type_hints(type(settings))
    for declared in fields(settings):
        key, value, allowed = prefix + declared.name, getattr(settings, declared.name), declared.metadata.get("range")
        if is_dataclass(value):
            yield from problems_of(value, f"{key}.")
        elif allowed and value is not None and not allowed.holds(value):
            yield f"{key}: {value} {allowed.complaint}"
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{key}: {value} is not a finite number"
        elif isinstance(value, int) and abs(value) >= 1 << 63:
            yield f"{key}: {value} is too large a number"
        elif types[declared.name] == dict[str, str]:
            wrong = {name: one for name, one in value.items() if not isinstance(one, str)}
            yield from (f"{key}.{name}: {one} is not text; give a single path or value" for name, one in wrong.items())
    if hasattr(settings, "problems"):
        yield from (prefix + problem for problem in settings.problems())
