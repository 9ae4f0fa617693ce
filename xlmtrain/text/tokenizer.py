"""Raw line -> tokens, fast: the rules of :mod:`xlmtrain.text.moses` are applied to words, and the results remembered.

A *word* is what stands between spaces. What the rules make of it depends on the word and on little else:

* a comma or an apostrophe that begins it, on whether a word stands before it;
* a period or an apostrophe that ends it, on whether a word follows, and whether with a small letter or a digit;
* an apostrophe or a quotation mark that ends it may change what is made of the next word, if that begins with an
  apostrophe or a period: the rule takes in the character after the mark, where another rule should have begun.

Rules that take away a space (``x :``, ``5 %``, ``( x``) do it beside characters that become tokens of their own anyway.
So a word is tokenized once for each kind of neighbours, between stand-ins for these. A line with the last of the cases
above, or with an odd character in it, is left to the rules as a whole.

Few rules look at what a letter or a digit is. So what becomes of a word is taken from its *shape*, in which most runs
of letters and of digits are replaced by stand-ins too: hundreds of thousands of words have some thousand shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import regex
from sacremoses import MosesPunctNormalizer
from sacremoses.corpus import NonbreakingPrefixes

from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.moses import RuleTokenizer

REMEMBERED = 1 << 17
"""What a memo holds for certain; there may be twice as many entries in it."""

_APOSTROPHES = "'`´‘’‚"  # what normalization makes an apostrophe of, and itself
_QUOTES = _APOSTROPHES + '"„“”«»'
_LETTERS = regex.compile(r"\p{L}+")
_RUN = regex.compile(r"\p{L}+|[0-9]+")
# No rule looks beyond a word that begins and ends so. (A comma at the end is a token with or without a next word.)
_FREE = regex.compile(r"[\p{L}0-9(](.*[\p{L}0-9,;:!?)])?")
# White space other than the space, what becomes white space, punctuation that takes white space away or becomes digits
# or quotation marks (Chinese and Japanese), and sacremoses' own name for dots.
_ODD = regex.compile(
    r"[\s\p{C}"
    + "".join(sorted({rule[0][0] for rule in MosesPunctNormalizer.REPLACE_UNICODE_PUNCTUATION} - set(_QUOTES + "…")))
    + "]|DOTMULTI"
)

K = TypeVar("K")
V = TypeVar("V")


def has_rules(language: str) -> bool:
    """Whether Moses' tokenizer knows the language's abbreviations; it takes the English ones for others."""
    return language in NonbreakingPrefixes().available_langs.values()


class Tokenizer:
    """Raw line -> tokens of one language, none of them empty or with white space in it."""

    def __init__(self, language: str, settings: TextConfig) -> None:
        self._rules = RuleTokenizer(language, settings)
        self._in_prefixes = frozenset(_RUN.findall(" ".join(self._rules.moses.NONBREAKING_PREFIXES)))
        self._alone = _Memo(self._tokens_alone)
        self._between = _Memo(self._tokens_between)
        self._templates = _Memo(self._template)
        self._stand_ins = _Memo(self._stand_in)
        self._neighbours = _Memo(self._neighbour)

    def __call__(self, line: str) -> list[str]:
        return self.text(line).split()

    def text(self, line: str) -> str:
        """The tokens of a raw line, separated by one space."""
        words = line.split(" ")
        if not all(words):
            words = list(filter(None, words))
        tokens = list(map(self._alone.__getitem__, words))
        for i in [i for i, text in enumerate(tokens) if not text]:
            following = self._neighbours[words[i + 1][0]] if i + 1 < len(words) else ""
            tokens[i] = self._between["A" if i else "", words[i], following]
            if not tokens[i]:
                return " ".join(self._rules(line))
        return " ".join(tokens)

    def _tokens_alone(self, word: str) -> str:
        """The tokens of a word in which no neighbour has a part; nothing for others."""
        if _LETTERS.fullmatch(word) and "DOTMULTI" not in word:
            return " ".join(self._rules.finish([word]))
        return self._tokens_between(("A", word, "A")) if _FREE.fullmatch(word) else ""

    def _tokens_between(self, key: tuple[str, str, str]) -> str:
        """The tokens of a word between stand-ins for its neighbours; nothing if it takes the whole line to tell."""
        before, word, following = key
        shape = _RUN.sub(lambda run: self._stand_ins[run.group()], word)
        if not (template := self._templates[before, shape, following]):
            return ""
        return " ".join(self._rules.finish((template % tuple(_RUN.findall(word))).split()))

    def _template(self, key: tuple[str, str, str]) -> str:
        """The tokens of a shape, with ``%s`` for each run."""
        before, shape, following = key
        if _ODD.search(shape) or (shape[-1] in _QUOTES and following in ("'", ".")):
            return ""
        tokens = self._rules.split(" ".join(filter(None, key)))
        return _RUN.sub("%s", " ".join(tokens[1 if before else 0 : -1 if following else None]).replace("%", "%%"))

    def _stand_in(self, run: str) -> str:
        """Letters, or digits, for which every rule does what it does for ``run``: a rule may know ``run`` from the
        abbreviations, may ask whether the first letter is small, or an s (after an apostrophe); between apostrophes
        it matters whether it is more than one."""
        if len(run) == 1 or run in self._in_prefixes or "DOTMULTI" in run:
            return run
        if run.isdigit():
            return "00"
        if not self._rules.moses.isallalpha(run):
            return run
        if not self._rules.moses.islower(run[0]):
            return "Word"
        return "sword" if run[0] == "s" else "word"

    def _neighbour(self, char: str) -> str:
        """A word, always one token, that does to the word before it what any word that begins with ``char`` does."""
        if char in _APOSTROPHES:
            return "'"
        if char == "…":
            return "."
        if char in ".0123456789":
            return char
        return "a" if self._rules.moses.islower(char) else "A"


class _Memo(dict[K, V]):
    """What was computed for a key: for the last :data:`REMEMBERED` keys, and perhaps as many before them."""

    def __init__(self, compute: Callable[[K], V]) -> None:
        super().__init__()
        self._compute = compute
        self._before: dict[K, V] = {}

    def __missing__(self, key: K) -> V:
        value = self._before[key] if key in self._before else self._compute(key)
        if len(self) >= REMEMBERED:
            self._before = dict(self)
            self.clear()
        self[key] = value
        return value
