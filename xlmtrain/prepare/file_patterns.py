"""Find files by patterns as a shell knows them: ``*``, ``?``, ``[a-s]``, ``[!x]``, ``**`` and ``{a,b}``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

_MAGIC = re.compile(r"[*?[]")
_TOKEN = re.compile(r"\*+|\?|\[([!^]?)(\]?[^]]+|\])\]|.", re.DOTALL)
Match = tuple[Path, tuple[str, ...]]
"""A path, and the text that each wildcard of the pattern stands for."""


def expand_braces(pattern: str) -> list[str]:
    """Return the patterns that ``{a,b}`` stands for, in this order. Braces without a comma are text, and so are all in
    the name of a file that exists."""
    depth, cuts = 0, [0]
    for index, char in enumerate("" if os.path.lexists(pattern) else pattern):
        if char == "{":
            depth += 1
            cuts = [index] if depth == 1 else cuts
        elif char == "," and depth == 1:
            cuts.append(index)
        elif char == "}" and depth:
            depth -= 1
            if depth == 0 and len(cuts) > 1:
                head, tail = pattern[: cuts[0]], pattern[index + 1 :]
                choices = [pattern[begin + 1 : end] for begin, end in pairwise([*cuts, index])]
                return [head + rest for choice in choices for rest in expand_braces(choice + tail)]
    return [pattern]


def matching_paths(pattern: str) -> list[Match]:
    """Return what matches a pattern without braces, in the order of the paths, numbers in them by their value.

    A part of the pattern that exists as it stands is a name. ``**`` stands for directories at any depth, except hidden
    ones and links.
    """
    found = dict(_matches(Path(), Path(pattern).parts))
    return sorted(found.items(), key=lambda match: natural_order(match[0]))


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return a key that sorts ``part-2`` before ``part-10``."""
    pieces = re.split("([0-9]+)", str(path))
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], str(path)


def _matches(directory: Path, parts: tuple[str, ...]) -> Iterator[Match]:
    if not parts:
        yield directory, ()
        return
    part, rest = parts[0], parts[1:]
    if not _MAGIC.search(part) or os.path.lexists(directory / part):
        yield from _matches(directory / part, rest)
    elif part == "**":
        for path, wildcards in _matches(directory, rest or ("*",)):
            yield path, ("", *wildcards)
        for name in _names(directory):
            if (directory / name).is_dir() and not (directory / name).is_symlink():
                for path, wildcards in _matches(directory / name, parts):
                    yield path, (f"{name}/{wildcards[0]}", *wildcards[1:])
    else:
        expression = _expression(part)
        for name in _names(directory, hidden=part.startswith(".")):
            if match := expression.fullmatch(name):
                for path, wildcards in _matches(directory / name, rest):
                    yield path, (*match.groups(), *wildcards)


def _names(directory: Path, hidden: bool = False) -> list[str]:
    """Return the names in a directory, none where it cannot be listed; ``hidden``: also those with a dot in front."""
    try:
        return [name for name in os.listdir(directory) if hidden or not name.startswith(".")]
    except OSError:
        return []


def _expression(part: str) -> re.Pattern[str]:
    """Return the regular expression for a name, with a group for each wildcard."""
    found = ""
    for token in _TOKEN.finditer(part):
        if token[2] is not None:
            characters = re.sub(r"([][\\&~|^])", r"\\\1", token[2])
            found += f"([{'^' if token[1] else ''}{characters}])"
        else:
            found += {"*": "(.*)", "?": "(.)"}.get(token[0][0], re.escape(token[0]))
    try:
        return re.compile(found, re.DOTALL)
    except re.error:  # a set like [z-a], in which no character is
        return re.compile(re.escape(part))
