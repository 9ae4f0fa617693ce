"""Vocabulary: 14 special symbols, then subwords by falling count. The id of an entry is its index in that order.

On disk (fastBPE's format): ``word count``, one entry a line, without the special symbols. Tokenizers of Hugging Face
have another vocabulary, in :mod:`xlmtrain.text.tokenizer_json`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xlmtrain.errors import DataError
from xlmtrain.text.text_files import read_lines

SPECIALS = ("<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10)))
# <s> is never emitted: EOS delimits a sentence on both sides, as in the released models.
EOS, PAD, UNK = range(1, 4)
MASK = SPECIALS.index("<special1>")
CONTINUATION = "@@"
"""Ends every subword that is not the last one of its word."""

logger = logging.getLogger(__name__)


class SpecialIds(NamedTuple):
    """Ids of the symbols that sequences are made with: ``bos`` begins a sequence, ``eos`` ends each of its sentences.

    ``unk`` is -1 if no text becomes unknown. ``others``: special symbols that no sequence has.
    """

    bos: int
    eos: int
    pad: int
    unk: int
    mask: int
    others: tuple[int, ...] = ()

    def but_eos(self) -> list[int]:
        """Return all special ids that cannot be part of a translation."""
        every = {*self[:-1], *self.others}
        return sorted(every - {self.eos, -1})


XLM_IDS = SpecialIds(EOS, EOS, PAD, UNK, MASK, tuple(range(len(SPECIALS))))
"""Those of every vocabulary of the original XLM."""


class Vocab:
    """Tokens <-> ids.

    ``tokens``: all entries in id order, special symbols first, without repetition. ``counts``: occurrences in the
    training text, int64, (len(vocab),), 0 for special symbols. ``is_special``, ``is_word``: (len(vocab),) bool, special
    symbols, and entries that can be a whole word. ``maskable``: (len(vocab),) bool, entries that masking may select and
    draw; all of them, as in the original XLM.
    """

    special = XLM_IDS

    def __init__(self, entries: Iterable[tuple[str, int]]) -> None:
        """``entries``: (word, count) without special symbols, in the order of the ids."""
        entries = list(entries)
        self.tokens: list[str] = [*SPECIALS, *(word for word, _ in entries)]
        self.counts = np.array([0] * len(SPECIALS) + [count for _, count in entries], dtype=np.int64)
        self._ids = {word: i for i, word in enumerate(self.tokens)}
        assert len(self._ids) == len(self.tokens), "a word occurs twice"
        continued = np.array([word.endswith(CONTINUATION) for word in self.tokens], bool)
        self._set_kinds(np.arange(len(self)) < len(SPECIALS), np.zeros(len(self), bool), ~continued)
        self.maskable = np.ones(len(self), bool)
        self.fingerprint: str = hashlib.sha256("\n".join(self.tokens).encode()).hexdigest()

    def _set_kinds(self, special: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        """Keep which entries are special, which begin a word, and after which one begins, (len(vocab),) bool each."""
        self.is_special, self._starts, self._ends = special, starts, ends
        self.is_word = (starts | ends) & ~special

    def __len__(self) -> int:
        return len(self.tokens)

    def id(self, word: str) -> int:
        """Return the id of ``word``, UNK if it is not in the vocabulary."""
        return self._ids.get(word, UNK)

    def token(self, id: int) -> str:
        """Return the token with ``id``, in [0, len(vocab))."""
        return self.tokens[id]

    def begins_word(self, ids: np.ndarray) -> np.ndarray:
        """Return where words begin in ``ids`` (..., T), (..., T) bool; a special symbol counts as a word."""
        begins: np.ndarray = self._starts[ids]
        begins[..., 1:] |= self._ends[ids[..., :-1]]
        begins[..., :1] = True
        return begins

    def encode(self, words: Iterable[str]) -> list[int]:
        """Return the ids of running text. Special symbols spelt out in the text are dropped, so that text cannot add
        delimiters or masks; only ``<unk>`` stays, as UNK."""
        ids = (self._ids.get(word, UNK) for word in words)
        return [id for id in ids if id >= len(SPECIALS) or id == UNK]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids`` with subwords joined; special symbols are spelt out."""
        return join_subwords(" ".join(self.tokens[id] for id in ids))

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], max_size: int = 0, min_count: int = 0) -> Vocab:
        """Make a vocabulary sorted by falling count, equal counts by code points: the same on every machine.

        ``max_size``: keep at most this many entries, special symbols included; 0 keeps all. ``min_count``: drop words
        that occur less often. Raises DataError if that drops all of them.
        """
        entries = [(word, count) for word, count in counts.items() if word not in SPECIALS]
        entries.sort(key=lambda entry: (-entry[1], entry[0]))
        return cls(_truncated(entries, max_size, min_count))

    @classmethod
    def read(cls, path: str | Path, max_size: int = 0, min_count: int = 0) -> Vocab:
        """Read ``word count`` lines; ``max_size`` and ``min_count`` as in :meth:`from_counts`.

        A line with U+2028, without exactly two fields, or with a repeated word is skipped, and later entries move up by
        one id, as in the original XLM: its published models depend on that. Raises DataError if the file is not
        readable, a count is not an integer, counts increase, or ``min_count`` leaves nothing.
        """
        entries: list[tuple[str, int]] = []
        seen = set(SPECIALS)
        skipped, first_skipped = 0, 0
        for number, line in read_lines(path, "vocabulary"):
            fields = line.split()
            if "\u2028" in line or len(fields) != 2 or fields[0] in seen:
                skipped, first_skipped = skipped + 1, first_skipped or number
                continue
            word, count = fields
            if not (count.isascii() and count.isdigit() and len(count) < 19):
                raise DataError(f"{path}:{number}: the count {count[:40]!r} is not an integer; expected 'word count'")
            if entries and int(count) > entries[-1][1]:
                raise DataError(
                    f"{path}:{number}: count {count} after {entries[-1][1]}; a vocabulary is sorted by falling count"
                )
            seen.add(word)
            entries.append((word, int(count)))
        if not entries:
            raise DataError(f"{path}: no vocabulary in it; expected lines of 'word count'")
        if skipped:
            what = "lines that are not 'word count' or repeat a word"
            logger.warning("%s: skipped %d %s, the first is line %d", path, skipped, what, first_skipped)
        return cls(_truncated(entries, max_size, min_count))

    def write(self, path: str | Path) -> None:
        """Write ``word count`` lines, without the special symbols."""
        entries = zip(self.tokens[len(SPECIALS) :], self.counts[len(SPECIALS) :].tolist())
        Path(path).write_bytes("".join(f"{word} {count}\n" for word, count in entries).encode())


def _truncated(entries: Sequence[tuple[str, int]], max_size: int, min_count: int) -> list[tuple[str, int]]:
    kept = [entry for entry in entries if entry[1] >= min_count]
    if entries and not kept:
        raise DataError(
            f"vocab.min_count: {min_count} leaves nothing; the most frequent subword occurs {entries[0][1]} times"
        )
    return kept[: max(max_size - len(SPECIALS), 0)] if max_size else kept


def join_subwords(text: str) -> str:
    """Return ``text`` with subwords joined to words."""
    return text.replace(CONTINUATION + " ", "").removesuffix(CONTINUATION)
