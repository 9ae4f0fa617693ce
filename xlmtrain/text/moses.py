"""Normalize and tokenize by the rules of Moses (without escaping), as ported to Python by sacremoses.

Normalization is that of the original XLM's data: Moses' replace-unicode-punctuation, normalize-punctuation and
remove-non-printing-char, in this order.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

import regex
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from xlmtrain.config.prepare import TextConfig

_METACHARACTERS = frozenset(r"\.^$*+?{}[]|()")
_CONTROL = regex.compile(r"\p{C}")


INVISIBLE = "\u00ad\u200c-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
"""Inside of a character class: characters that are not seen, and that Moses would replace by spaces."""
MAX_TOKEN_CHARS = 1000
"""Longer tokens are cut into several: the time of BPE grows with the square of the length."""

_INVISIBLE = re.compile(f"[{INVISIBLE}]+")


def normalize_unicode(text: str) -> str:
    """Compose letters and accents (NFC), and remove invisible characters inside words."""
    return text if text.isascii() else unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


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


class RuleTokenizer:
    """Raw line -> tokens of one language; no token is empty or has white space in it.

    The reference, rule by rule. :class:`~xlmtrain.text.tokenizer.Tokenizer` gives the same tokens faster.
    """

    def __init__(self, language: str, settings: TextConfig) -> None:
        self._normalize = Normalizer(language)
        self.moses = Moses(language)
        self._lowercase = settings.lowercase
        self._remove_accents = settings.remove_accents
        self.prepare = normalize_unicode if settings.normalize_unicode else str

    def __call__(self, line: str) -> list[str]:
        return self.finish(self.split(self.prepare(line)))

    def split(self, line: str) -> list[str]:
        """Return the tokens before lower-casing and removal of accents."""
        tokens: list[str] = self.moses.tokenize(self._normalize(line), escape=False)
        # In Moses, the last word's period ends the sentence even after an abbreviation; sacremoses lacks that rule.
        if tokens and len(tokens[-1]) > 1 and tokens[-1].endswith(".") and not tokens[-1].endswith(".."):
            tokens[-1:] = [tokens[-1][:-1], "."]
        return tokens

    def finish(self, tokens: list[str]) -> list[str]:
        """Lower-case the tokens and remove accents, as the settings say, and cut long ones; each token separately."""
        if self._lowercase:
            tokens = [token.lower() for token in tokens]
        if self._remove_accents:
            tokens = [bare for token in tokens if (bare := _without_accents(token))]
        if max(map(len, tokens), default=0) > MAX_TOKEN_CHARS:
            pieces = range(0, max(map(len, tokens)), MAX_TOKEN_CHARS)
            cut = (token[start : start + MAX_TOKEN_CHARS] for token in tokens for start in pieces)
            tokens = [piece for piece in cut if piece]
        return tokens


class Moses(MosesTokenizer):  # type: ignore[misc]
    """sacremoses' port, closer to the Perl script and faster."""

    # sacremoses lists letters and digits by hand, without Han, Hangul and later additions to Unicode.
    PAD_NOT_ISALNUM = regex.compile(r"([^\p{Alnum}\s\.'\`\,\-])"), r" \1 "
    _lower = frozenset(MosesTokenizer.IsLower)
    _alpha = frozenset(MosesTokenizer.IsAlpha)

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self.PAD_NOT_ISALNUM = Moses.PAD_NOT_ISALNUM  # sacremoses overwrites it for Chinese, Japanese, Korean
        for name in ("COMMA_SEPARATE_1", "COMMA_SEPARATE_2", "COMMA_SEPARATE_3"):
            setattr(self, name, _guarded(",", *getattr(self, name)))
        self.TRAILING_DOT_APOSTROPHE = _guarded("'", *MosesTokenizer.TRAILING_DOT_APOSTROPHE)
        for name in ("ENGLISH_SPECIFIC_APOSTROPHE", "FR_IT_SPECIFIC_APOSTROPHE"):
            setattr(self, name, [_guarded("'", *rule) for rule in getattr(self, name)])

    def islower(self, text: str) -> bool:
        """Return whether ``text`` is all small letters."""
        return self._lower.issuperset(text)

    def isanyalpha(self, text: str) -> bool:
        """Return whether ``text`` contains a letter."""
        return not self._alpha.isdisjoint(text)

    def isallalpha(self, text: str) -> bool:
        """Return whether ``text`` is all letters."""
        return self._alpha.issuperset(text)


class _GuardedPattern:
    """A pattern that is skipped for text without a character that every match contains, which is most text."""

    def __init__(self, char: str, pattern: re.Pattern[str]) -> None:
        self._char, self._pattern = char, pattern

    def sub(self, replacement: str, text: str) -> str:
        return self._pattern.sub(replacement, text) if self._char in text else text


def _guarded(char: str, pattern: re.Pattern[str], replacement: str) -> tuple[_GuardedPattern, str]:
    return _GuardedPattern(char, pattern), replacement


def _without_accents(token: str) -> str:
    """Decompose ``token`` and remove the combining marks."""
    if token.isascii():
        return token
    return "".join(char for char in unicodedata.normalize("NFD", token) if unicodedata.category(char) != "Mn")
