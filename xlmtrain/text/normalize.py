"""Normalize punctuation and control characters like the original XLM's data: Moses' replace-unicode-punctuation,
normalize-punctuation and remove-non-printing-char, in this order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import regex
from sacremoses import MosesPunctNormalizer

_METACHARACTERS = frozenset(r"\.^$*+?{}[]|()")
_CONTROL = regex.compile(r"\p{C}")


class Normalizer:
    """Raw line -> line with uniform punctuation. The rules are sacremoses'; some depend on the language, such as those
    for German quotation marks and commas."""

    def __init__(self, language: str) -> None:
        rules = MosesPunctNormalizer(lang=language, perl_parity=True)
        self._unicode = [_substitution(*rule) for rule in rules.REPLACE_UNICODE_PUNCTUATION]
        self._punctuation = [_substitution(*rule) for rule in rules.substitutions]

    def __call__(self, line: str) -> str:
        # The Perl scripts see the newline, and one rule needs it: it swaps a period and a quotation mark in German only
        # if a character follows, so at the end of a line, too.
        line += "\n"
        if not line.isascii():
            line = _apply(self._unicode, line)
        # Moses replaces a control character by a space; sacremoses would remove it and join its neighbours.
        return str(_CONTROL.sub(" ", _apply(self._punctuation, line))).strip()


def _apply(substitutions: Iterable[Callable[[str], str]], line: str) -> str:
    for substitute in substitutions:
        line = substitute(line)
    return line


def _substitution(pattern: str, replacement: str) -> Callable[[str], str]:
    """Return a rule as a function; most rules replace a literal string, for which ``str.replace`` is much faster."""
    if not _METACHARACTERS.intersection(pattern):
        return lambda line: line.replace(pattern, replacement)
    # The look-behind keeps the rule for German periods before quotation marks linear in the length of a row of dots.
    compiled = re.compile(r"(?<!\.)" + pattern if pattern.startswith(r"(\.+)") else pattern)
    # ``sub`` with groups in the replacement is far slower than ``search``, even where nothing matches.
    return lambda line: compiled.sub(replacement, line) if compiled.search(line) else line
