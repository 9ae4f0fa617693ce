"""Validation of settings beyond types: ranges are declared with the fields, other problems by the classes.

Text is checked before it gets its type, and for all settings alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from xlmtrain.errors import ConfigError

T = TypeVar("T")
_RESOLVER = re.compile(r"(?<!\\)\$\{\s*[\w.]+\s*:")
_HOME = re.compile(r"~\w*(/|$)")


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
    kinds, comparable = get_type_hints(type(settings)), True
    for declared in fields(settings):
        key, value, allowed = prefix + declared.name, getattr(settings, declared.name), declared.metadata.get("range")
        if is_dataclass(value):
            yield from problems_of(value, f"{key}.")
        elif wanted := _wanted_number(kinds[declared.name], value):
            comparable = False
            yield f"{key}: {value!r} is not {wanted}"
        elif allowed and value is not None and not allowed.holds(value):
            yield f"{key}: {value} {allowed.complaint}"
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{key}: {value} is not a finite number"
        elif isinstance(value, int) and abs(value) >= 1 << 63:
            yield f"{key}: {value} is too large a number"
        elif kinds[declared.name] == dict[str, str]:
            wrong = {name: v for name, v in value.items() if not isinstance(v, str)}
            yield from (f"{key}.{name}: {v} is not text; give a single path or value" for name, v in wrong.items())
    if comparable and hasattr(settings, "problems"):
        yield from (prefix + problem for problem in settings.problems())


def _wanted_number(kind: Any, value: Any) -> str | None:
    """Return the kind of number that ``kind`` asks for and ``value`` is not; None if there is nothing wrong."""
    if value is None and kind not in (int, float):
        return None
    if kind in (int, int | None):
        return None if isinstance(value, int) else "a whole number"
    if kind in (float, float | None):
        return None if isinstance(value, (int, float)) else "a number"
    return None


def check_texts(value: Any, key: str = "") -> None:
    """Raise ConfigError, with the key path, for text in nested mappings and lists that cannot be meant as it stands."""
    if isinstance(value, (dict, list)):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            check_texts(inner, f"{key}.{name}" if key else str(name))
    if not isinstance(value, str):
        return
    # ${oc.env:TOKEN} would write a secret into the run: settings may refer to each other, to nothing else.
    if _RESOLVER.search(value):
        raise ConfigError(f"{key}: {value} asks for something outside the settings; give the value itself")
    if not value.strip():
        raise ConfigError(f"{key}=: empty, as an unset shell variable is; give a value, or leave it out")
    if _HOME.match(value):
        raise ConfigError(f"{key}: {value}: the shell has not expanded the ~; give the whole path")
