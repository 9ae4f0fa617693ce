"""Tokenize raw lines fast: apply the Moses rules (:mod:`xlmtrain.text.moses`) once per distinct word, cache the result.

A *word* is a run of characters between spaces. To tokenize ``Das kostet 3.50 Euro usw.``, the rules apply dozens of
regular expressions to the line. Here each word takes the first of these steps that gives the same tokens:

1. **Context-free** (most words). ``kostet`` begins and ends with a letter or digit, so no rule looks at its neighbours.
   Its tokens are cached under the word alone; from then on it costs one dictionary look-up.
2. **In context**. ``usw.`` keeps its period inside the line but loses it at the end of the line. Only a few facts about
   the neighbours matter, so each is reduced to a representative: ``A`` for a word that does not begin with a small
   letter, ``a`` for one that does, ``.``, ``'``, a digit, or nothing at an end of the line. The tokens are cached under
   (before, word, after): ``("A", "usw.", "")`` gives ``usw .`` and ``("A", "usw.", "a")`` gives ``usw.``
3. **Full rules**. If the word contains rare characters (Chinese punctuation, control characters, ...), or ends with a
   quotation mark before a word that begins with an apostrophe or a period, the rules tokenize the line as a whole.

Steps 1 and 2 share results between words of the same *shape*. Few rules ask which letters a word is made of, so runs of
letters and digits become placeholders: ``(Haus)`` and ``(Bahn)`` both have the shape ``(Word)``, which the rules turn
into the template ``( %s )``. Hundreds of thousands of words have a few thousand shapes.

The neighbours matter for

* a comma or an apostrophe at the beginning of a word: is there a word before it?
* a period or an apostrophe at its end: is there a word after it, and does that begin with a small letter or a digit?
* an apostrophe or a quotation mark at its end: does the next word begin with an apostrophe or a period? (step 3)

Rules that remove a space (``x :``, ``5 %``, ``( x``) do so beside characters that become tokens of their own anyway.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import regex
from sacremoses import MosesPunctNormalizer
from sacremoses.corpus import NonbreakingPrefixes

from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.moses import RuleTokenizer

LINE_END = 0
"""The token number that ends a sentence."""

_NEEDS_FULL_RULES = -1  # stands for a token run that depends on the neighbours or on the whole line

_APOSTROPHES = "'`´‘’‚"  # characters that normalization turns into an apostrophe, and the apostrophe
_QUOTES = _APOSTROPHES + '"„“”«»'
_MARKS = ".,:;!?()-" + _QUOTES
_RUN = regex.compile(r"\p{L}+|[0-9]+")
# No rule looks beyond a word that begins and ends like this. (A final comma is a token with or without a next word.)
_CONTEXT_FREE = regex.compile(r"[\p{L}0-9(](.*[\p{L}0-9,;:!?)])?")
# White space other than the space, characters that become white space, (Chinese and Japanese) punctuation that removes
# white space or becomes digits or quotation marks, and sacremoses' internal name for dots.
_RARE = regex.compile(
    r"[\s\p{C}"
    + "".join(sorted({rule[0][0] for rule in MosesPunctNormalizer.REPLACE_UNICODE_PUNCTUATION} - set(_QUOTES + "…")))
    + "]|DOTMULTI"
)

K = TypeVar("K")
V = TypeVar("V")


def has_rules(language: str) -> bool:
    """Return whether Moses knows the language's abbreviations; for other languages it uses the English ones."""
    return language in NonbreakingPrefixes().available_langs.values()


class Tokenizer:
    """Raw lines -> tokens of one language; no token is empty or has white space in it.

    Tokens are numbered from 1 in order of first occurrence; ``words`` maps numbers to tokens. A raw word is cached as
    the number of its *token run*, the tokens it is split into, usually one. So text becomes token numbers by one
    dictionary look-up per word and a few array operations.
    """

    def __init__(self, language: str, settings: TextConfig, cache_size: int = 1 << 12) -> None:
        """``cache_size``: cached raw words that trigger eviction; each takes about 150 bytes."""
        self._cache_size = cache_size
        self._rules = RuleTokenizer(language, settings)
        self._prefix_runs = frozenset(_RUN.findall(" ".join(self._rules.moses.NONBREAKING_PREFIXES)))
        self._templates = lru_cache(cache_size)(self._template)
        self._placeholders = lru_cache(cache_size)(self._placeholder)
        self._neighbours = lru_cache(cache_size)(self._neighbour)
        self._context_free: _Cache[str, int] = _Cache(lambda word: self._token_run(self._tokenize_context_free(word)))
        self._in_context: _Cache[tuple[str, str, str], int] = _Cache(
            lambda key: self._token_run(self._tokenize_in_context(key))
        )
        self._numbers: _Cache[str, int] = _Cache(self._add_word)
        self.words: list[str] = []
        """Distinct tokens by number; the first is the line end."""
        # Token run n is _run_tokens[_run_ends[n] : _run_ends[n + 1]].
        self._run_tokens, self._run_ends = array("i"), array("i", [0])
        self._context_free["\n"] = self._token_run("\n")

    def __call__(self, line: str) -> list[str]:
        """Return the tokens of a line; line ends inside it count as white space."""
        if "\n" in line:
            return self._rules(line)
        self.evict()
        return [self.words[number] for number in self.numbers(f"{line}\n").tolist() if number != LINE_END]

    def evict(self) -> None:
        """Shrink the caches if they are full. Token numbers returned before are then invalid."""
        if len(self._context_free) + len(self._run_ends) <= self._cache_size:
            return
        kept = self._cache_size // 4  # the oldest, which are the most frequent words
        del self._run_ends[kept + 1 :], self._run_tokens[self._run_ends[-1] :]
        del self.words[max(self._run_tokens) + 1 :]
        for cache in (self._context_free, self._in_context):
            cache.retain(range(kept))
        self._numbers.retain(range(len(self.words)))

    def numbers(self, text: str) -> np.ndarray:
        """Return the token numbers of ``text``, int32, :data:`LINE_END` after every line. Every line ends with \\n."""
        text = self._rules.prepare(text)
        raw = list(filter(None, text.replace("\n", " \n ").split(" ")))
        runs = np.fromiter(map(self._context_free.__getitem__, raw), np.int32, len(raw))
        open_words = np.flatnonzero(runs == _NEEDS_FULL_RULES).tolist()
        runs[open_words] = [self._in_context[_context(raw, i, self._neighbours)] for i in open_words]
        if (runs == _NEEDS_FULL_RULES).any():
            runs = self._apply_full_rules(text, runs)
        ends = np.frombuffer(self._run_ends, np.int32)
        return gather(np.frombuffer(self._run_tokens, np.int32), ends, runs)[0]

    def _apply_full_rules(self, text: str, runs: np.ndarray) -> np.ndarray:
        """Return ``runs`` with one token run in place of each line that still has an undecided word."""
        lines = text.split("\n")
        ends = np.flatnonzero(runs == LINE_END)
        replaced, done = [], 0
        for line in np.unique(np.searchsorted(ends, np.flatnonzero(runs == _NEEDS_FULL_RULES))).tolist():
            tokens = " ".join(self._rules(lines[line]))
            replaced += [runs[done : ends[line - 1] + 1 if line else 0], [self._token_run(tokens)] if tokens else []]
            done = ends[line]
        return np.concatenate([*replaced, runs[done:]]).astype(np.int32)

    def _token_run(self, tokens: str) -> int:
        """Add a token run, given as tokens with spaces between, and return its number."""
        if not tokens:
            return _NEEDS_FULL_RULES
        self._run_tokens.extend(map(self._numbers.__getitem__, tokens.split(" ")))
        self._run_ends.append(len(self._run_tokens))
        return len(self._run_ends) - 2

    def _add_word(self, word: str) -> int:
        self.words.append(word)
        return len(self.words) - 1

    def _tokenize_context_free(self, word: str) -> str:
        """Return the tokens of a word whose neighbours do not matter, "" for other words."""
        if word.isalpha() and "DOTMULTI" not in word:
            return self._finish(word)
        return self._tokenize_in_context(("A", word, "A")) if _CONTEXT_FREE.fullmatch(word) else ""

    def _tokenize_in_context(self, key: tuple[str, str, str]) -> str:
        """Return the tokens of (before, word, after), "" if they depend on the whole line."""
        before, word, after = key
        run = word.strip(_MARKS)
        if run.isalpha():  # most words have a single run
            left, _, right = word.partition(run)
            runs, shape = (run,), left + self._placeholders(run) + right
        else:
            runs = tuple(_RUN.findall(word))
            shape = _RUN.sub(lambda match: self._placeholders(match.group()), word)
        template = self._templates(before, shape, after)
        return self._finish(template % runs) if template else ""

    def _finish(self, tokens: str) -> str:
        return " ".join(self._rules.finish(tokens.split(" ")))

    def _template(self, before: str, shape: str, after: str) -> str:
        """Return the tokens of a shape with ``%s`` for each run, "" if they depend on the whole line."""
        if _RARE.search(shape) or (shape[-1] in _QUOTES and after in ("'", ".")):
            return ""
        tokens = self._rules.split(" ".join(filter(None, (before, shape, after))))
        inner = " ".join(tokens[1 if before else 0 : -1 if after else None])
        return str(_RUN.sub("%s", inner.replace("%", "%%")))

    def _placeholder(self, run: str) -> str:
        """Return letters or digits that every rule treats like ``run``.

        Rules ask whether a run is an abbreviation or a single character (between apostrophes), and whether it begins
        with a small letter, or with an s (after an apostrophe).
        """
        if len(run) == 1 or run in self._prefix_runs or "DOTMULTI" in run:
            return run
        if run.isdigit():
            return "00"
        if not self._rules.moses.isallalpha(run):
            return run
        if not self._rules.moses.islower(run[0]):
            return "Word"
        return "sword" if run[0] == "s" else "word"

    def _neighbour(self, char: str) -> str:
        """Return a one-token word that affects the word before it like any word that begins with ``char``."""
        if char in _APOSTROPHES:
            return "'"
        if char == "…":
            return "."
        if char in ".0123456789":
            return char
        return "a" if self._rules.moses.islower(char) else "A"


def _context(raw: Sequence[str], i: int, neighbours: Callable[[str], str]) -> tuple[str, str, str]:
    """Return word ``i`` between representatives of its neighbours, "" at an end of the line."""
    before, after = raw[i - 1] if i else "\n", raw[i + 1]
    return "" if before == "\n" else "A", raw[i], "" if after == "\n" else neighbours(after[0])


def gather(values: np.ndarray, ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate ragged rows; row n is ``values[ends[n] : ends[n + 1]]``. ``rows`` (n,) has no negative entry.

    Returns the values, and for each row where it ends in them, int64, (n,).
    """
    starts = ends[rows]
    lengths = ends[rows + 1] - starts
    upto = np.cumsum(lengths, dtype=np.int64)
    return values[np.repeat(starts - (upto - lengths), lengths) + np.arange(upto[-1] if len(upto) else 0)], upto


class _Cache(dict[K, V]):
    """Values computed on first access."""

    def __init__(self, compute: Callable[[K], V]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, key: K) -> V:
        value = self[key] = self._compute(key)
        return value

    def retain(self, values: Container[V]) -> None:
        """Remove the entries of all other values."""
        kept = {key: value for key, value in self.items() if value in values}
        self.clear()
        self.update(kept)
