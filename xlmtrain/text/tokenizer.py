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

from array import array
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TypeVar

import numpy as np
import regex
from sacremoses import MosesPunctNormalizer
from sacremoses.corpus import NonbreakingPrefixes

from xlmtrain.config.prepare import TextConfig
from xlmtrain.prepare.token_shards import LINE_END
from xlmtrain.text.moses import RuleTokenizer

REMEMBERED = 1 << 19
"""When so many raw words were met, most of them are forgotten."""
KEPT = 1 << 17
"""So many are not: the ones met first, which are the most frequent."""

_DOUBTFUL = -1  # in a piece's place: it takes the neighbours, or the whole line, to tell

_APOSTROPHES = "'`´‘’‚"  # what normalization makes an apostrophe of, and itself
_QUOTES = _APOSTROPHES + '"„“”«»'
_MARKS = ".,:;!?()-" + _QUOTES
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
    """Raw lines -> tokens of one language, none of them empty or with white space in it.

    Running text becomes numbers: distinct tokens, ``words``, are counted from 1 as they are met, and so is what a raw
    word becomes, a *piece* of usually one token, so that most of the text costs no more than looking up a number.
    """

    def __init__(self, language: str, settings: TextConfig) -> None:
        self._rules = RuleTokenizer(language, settings)
        self._in_prefixes = frozenset(_RUN.findall(" ".join(self._rules.moses.NONBREAKING_PREFIXES)))
        self._templates = _Memo(self._template)
        self._stand_ins = _Memo(self._stand_in)
        self._neighbours = _Memo(self._neighbour)
        self._alone: _Table[str, int] = _Table(lambda word: self._piece(self._tokens_alone(word)))
        self._between: _Table[tuple[str, str, str], int] = _Table(lambda key: self._piece(self._tokens_between(key)))
        self._numbers: _Table[str, int] = _Table(self._new_word)
        self.words: list[str] = []
        """The distinct tokens; the first is the line end."""
        # The tokens of piece n are _tokens[_ends[n] : _ends[n + 1]].
        self._tokens, self._ends = array("i"), array("i", [0])
        self._alone["\n"] = self._piece("\n")

    def __call__(self, line: str) -> list[str]:
        """The tokens of one line, or of several, whose ends are white space then."""
        if "\n" in line:
            return self._rules(line)
        self.start()
        return [self.words[number] for number in self.numbers(f"{line}\n").tolist() if number != LINE_END]

    def start(self) -> None:
        """Forget the words if there are many; numbers given before mean nothing then."""
        if len(self._alone) + len(self._ends) > REMEMBERED:
            self._forget_all_but(KEPT)

    def numbers(self, text: str) -> np.ndarray:
        """``text``, lines with an end each, as numbers of ``words``, int32: :data:`LINE_END` after every line."""
        raw = list(filter(None, text.replace("\n", " \n ").split(" ")))
        pieces = np.fromiter(map(self._alone.__getitem__, raw), np.int32, len(raw))
        doubtful = np.flatnonzero(pieces == _DOUBTFUL).tolist()
        pieces[doubtful] = [self._between[_with_neighbours(raw, i, self._neighbours)] for i in doubtful]
        if (pieces == _DOUBTFUL).any():
            pieces = self._by_rules(text, pieces)
        ends = np.frombuffer(self._ends, np.int32)
        return gather(np.frombuffer(self._tokens, np.int32), ends, pieces)[0]

    def _by_rules(self, text: str, pieces: np.ndarray) -> np.ndarray:
        """``pieces`` with those of the lines replaced that have a doubtful word left."""
        lines = text.split("\n")
        ends = np.flatnonzero(pieces == LINE_END)
        replaced, done = [], 0
        for line in np.unique(np.searchsorted(ends, np.flatnonzero(pieces == _DOUBTFUL))).tolist():
            tokens = " ".join(self._rules(lines[line]))
            replaced += [pieces[done : ends[line - 1] + 1 if line else 0], [self._piece(tokens)] if tokens else []]
            done = ends[line]
        return np.concatenate([*replaced, pieces[done:]]).astype(np.int32)

    def _piece(self, tokens: str) -> int:
        """The number of a new piece; nothing stands for no piece."""
        if not tokens:
            return _DOUBTFUL
        self._tokens.extend(map(self._numbers.__getitem__, tokens.split(" ")))
        self._ends.append(len(self._tokens))
        return len(self._ends) - 2

    def _new_word(self, word: str) -> int:
        self.words.append(word)
        return len(self.words) - 1

    def _forget_all_but(self, pieces: int) -> None:
        del self._ends[pieces + 1 :], self._tokens[self._ends[-1] :], self.words[max(self._tokens) + 1 :]
        for table in (self._alone, self._between):
            table.keep(range(pieces))
        self._numbers.keep(range(len(self.words)))

    def _tokens_alone(self, word: str) -> str:
        """The tokens of a word in which no neighbour has a part; nothing for others."""
        if word.isalpha() and "DOTMULTI" not in word:
            return self._finish(word)
        return self._tokens_between(("A", word, "A")) if _FREE.fullmatch(word) else ""

    def _tokens_between(self, key: tuple[str, str, str]) -> str:
        """The tokens of a word between stand-ins for its neighbours; nothing if it takes the whole line to tell."""
        before, word, following = key
        run = word.strip(_MARKS)
        if run.isalpha():  # most words: there is but one run
            left, _, right = word.partition(run)
            runs, shape = (run,), left + self._stand_ins[run] + right
        else:
            runs = tuple(_RUN.findall(word))
            shape = _RUN.sub(lambda run: self._stand_ins[run.group()], word)
        template = self._templates[before, shape, following]
        return self._finish(template % runs) if template else ""

    def _finish(self, tokens: str) -> str:
        return " ".join(self._rules.finish(tokens.split(" ")))

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


def _with_neighbours(raw: Sequence[str], i: int, neighbours: Mapping[str, str]) -> tuple[str, str, str]:
    """The word at ``i`` between stand-ins for those before and after it, nothing at the ends of the line."""
    before, following = raw[i - 1] if i else "\n", raw[i + 1]
    return "" if before == "\n" else "A", raw[i], "" if following == "\n" else neighbours[following[0]]


def gather(values: np.ndarray, ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ``values`` of rows, one row after the other, and for each how many there are up to its end, int64. Those of
    row n are ``values[ends[n] : ends[n + 1]]``; none of the ``rows`` is negative."""
    starts = ends[rows]
    lengths = ends[rows + 1] - starts
    upto = np.cumsum(lengths, dtype=np.int64)
    return values[np.repeat(starts - (upto - lengths), lengths) + np.arange(upto[-1] if len(upto) else 0)], upto


class _Table(dict[K, V]):
    """What was computed for a key."""

    def __init__(self, compute: Callable[[K], V]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, key: K) -> V:
        value = self[key] = self._compute(key)
        return value

    def keep(self, values: Container[V]) -> None:
        """Forget the keys of all other values."""
        kept = {key: value for key, value in self.items() if value in values}
        self.clear()
        self.update(kept)


class _Memo(_Table[K, V]):
    """The same, emptied whenever it is full."""

    def __missing__(self, key: K) -> V:
        if len(self) >= REMEMBERED:
            self.clear()
        return super().__missing__(key)
