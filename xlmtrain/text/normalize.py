"""Punctuation and control characters made uniform, as in the chain that made the released models' data: Moses'
replace-unicode-punctuation, normalize-punctuation and remove-non-printing-char, in this order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import regex
from sacremoses import MosesPunctNormalizer

_METACHARACTERS = frozenset(r"\.^$*+?{}[]|()")
_CONTROL = regex.compile(r"\p{C}")


class Normalizer:
    """Raw line -> line with uniform punctuation. Some rules depend on the language (German quotation marks and commas,
    for example); sacremoses holds them all, here they are only compiled."""

    def __init__(self, language: str) -> None:
        rules = MosesPunctNormalizer(lang=language, perl_parity=True)
        self._unicode = [_substitution(*rule) for rule in rules.REPLACE_UNICODE_PUNCTUATION]
        self._punctuation = [_substitution(*rule) for rule in rules.substitutions]

    def __call__(self, line: str) -> str:
        # The Perl scripts see the newline, and one of their rules needs it: a period and a quotation mark at the very
        # end of a German line change places only because something follows them.
        line += "\n"
        if not line.isascii():
            line = _apply(self._unicode, line)
        # Moses puts a space in a control character's place; sacremoses would join what stood on both sides.
        return _CONTROL.sub(" ", _apply(self._punctuation, line)).strip()


def _apply(substitutions: Iterable[Callable[[str], str]], line: str) -> str:
    for substitute in substitutions:
        line = substitute(line)
    return line


def _substitution(pattern: str, replacement: str) -> Callable[[str], str]:
    """A rule as a function; most rules replace a literal string, for which ``str.replace`` is much faster."""
    if not _METACHARACTERS.intersection(pattern):
        return lambda line: line.replace(pattern, replacement)
    # The rule for a German period before a quotation mark would try a row of dots from each of its dots, to its end.
    compiled = re.compile(r"(?<!\.)" + pattern if pattern.startswith(r"(\.+)") else pattern)
    # ``sub`` with groups in the replacement costs far more than a search, also where it finds nothing.
    return lambda line: compiled.sub(replacement, line) if compiled.search(line) else line
