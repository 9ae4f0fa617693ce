"""Words and punctuation marks apart: Moses' tokenizer without escaping, as ported to Python by sacremoses."""

from __future__ import annotations

import unicodedata

import regex
from sacremoses import MosesTokenizer
from sacremoses.corpus import NonbreakingPrefixes

from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.normalize import Normalizer


class _Moses(MosesTokenizer):
    """sacremoses' port, brought nearer to the Perl script and relieved of building large sets per word."""

    # sacremoses lists letters and digits by hand, without Han, Hangul and later additions to Unicode.
    PAD_NOT_ISALNUM = regex.compile(r"([^\p{Alnum}\s\.'\`\,\-])"), r" \1 "
    _lower = frozenset(MosesTokenizer.IsLower)
    _alpha = frozenset(MosesTokenizer.IsAlpha)

    def islower(self, text: str) -> bool:
        return self._lower.issuperset(text)

    def isanyalpha(self, text: str) -> bool:
        return not self._alpha.isdisjoint(text)


def has_rules(language: str) -> bool:
    """Whether Moses' tokenizer knows the language's abbreviations; it takes the English ones for others."""
    return language in NonbreakingPrefixes().available_langs.values()


class Tokenizer:
    """Raw line -> tokens of one language, none of them empty or with white space in it."""

    def __init__(self, language: str, settings: TextConfig) -> None:
        self._normalize = Normalizer(language)
        self._moses = _Moses(language)
        self._lowercase = settings.lowercase
        self._remove_accents = settings.remove_accents

    def __call__(self, line: str) -> list[str]:
        tokens = self._moses.tokenize(self._normalize(line), escape=False)
        # The last word's period ends the sentence, even after an abbreviation; sacremoses lacks this rule of Moses'.
        if tokens and len(tokens[-1]) > 1 and tokens[-1].endswith(".") and not tokens[-1].endswith(".."):
            tokens[-1:] = [tokens[-1][:-1], "."]
        if self._lowercase:
            tokens = [token.lower() for token in tokens]
        if self._remove_accents:
            tokens = [bare for token in tokens if (bare := _without_accents(token))]
        return tokens


def _without_accents(token: str) -> str:
    """``token`` decomposed, its combining marks left out."""
    if token.isascii():
        return token
    return "".join(char for char in unicodedata.normalize("NFD", token) if unicodedata.category(char) != "Mn")
