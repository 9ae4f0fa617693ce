"""Tokenize by the rules of Moses (without escaping), as ported to Python by sacremoses."""

from __future__ import annotations

import re
import unicodedata

import regex
from sacremoses import MosesTokenizer

from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.normalize import Normalizer


class RuleTokenizer:
    """Raw line -> tokens of one language; no token is empty or has white space in it.

    The reference, rule by rule. :class:`~xlmtrain.text.tokenizer.Tokenizer` gives the same tokens faster.
    """

    def __init__(self, language: str, settings: TextConfig) -> None:
        self._normalize = Normalizer(language)
        self.moses = Moses(language)
        self._lowercase = settings.lowercase
        self._remove_accents = settings.remove_accents

    def __call__(self, line: str) -> list[str]:
        return self.finish(self.split(line))

    def split(self, line: str) -> list[str]:
        """Return the tokens before lower-casing and removal of accents."""
        tokens: list[str] = self.moses.tokenize(self._normalize(line), escape=False)
        # In Moses, the last word's period ends the sentence even after an abbreviation; sacremoses lacks that rule.
        if tokens and len(tokens[-1]) > 1 and tokens[-1].endswith(".") and not tokens[-1].endswith(".."):
            tokens[-1:] = [tokens[-1][:-1], "."]
        return tokens

    def finish(self, tokens: list[str]) -> list[str]:
        """Lower-case the tokens and remove accents, as the settings say; each token separately."""
        if self._lowercase:
            tokens = [token.lower() for token in tokens]
        if self._remove_accents:
            tokens = [bare for token in tokens if (bare := _without_accents(token))]
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
        for char, name in (
            (",", "COMMA_SEPARATE_1"),
            (",", "COMMA_SEPARATE_2"),
            (",", "COMMA_SEPARATE_3"),
            ("'", "TRAILING_DOT_APOSTROPHE"),
        ):
            setattr(self, name, _guarded(char, *getattr(self, name)))
        for name in ("ENGLISH_SPECIFIC_APOSTROPHE", "FR_IT_SPECIFIC_APOSTROPHE"):
            setattr(self, name, [_guarded("'", *rule) for rule in getattr(self, name)])
        self.TRAILING_DOT_APOSTROPHE = _guarded("'", *self.TRAILING_DOT_APOSTROPHE)  # type: ignore[has-type, arg-type]

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
