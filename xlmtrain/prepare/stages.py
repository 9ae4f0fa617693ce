"""The two stages of preparation that go through the whole text, a shard at a time in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from xlmtrain.config.prepare import TextConfig
from xlmtrain.prepare.raw_files import Chunk
from xlmtrain.prepare.token_shards import LINE_END
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.tokenizer import Tokenizer, gather
from xlmtrain.text.vocab import EOS, Vocab

CACHED_WORDS = 1 << 18


@dataclass(frozen=True)
class Tokenized:
    """A chunk of raw lines as tokens. ``numbers``: for each language its sentences as numbers of words, ``LINE_END``
    after each, int32; sentence i of one language translates sentence i of the other."""

    dropped: dict[str, int]
    sentences: int
    numbers: tuple[np.ndarray, ...]


class TokenizeChunk:
    """Raw lines -> tokens; lines that cannot be used are dropped, on both sides of a pair."""

    def __init__(self, settings: TextConfig, languages: list[str]) -> None:
        self._max_tokens = settings.max_tokens
        self._tokenizers = {language: Tokenizer(language, settings) for language in languages}

    def start(self) -> None:
        """A new shard begins; numbers of the last one's words mean nothing any more."""
        for tokenizer in self._tokenizers.values():
            tokenizer.start()

    def words(self, language: str) -> Sequence[str]:
        """What the numbers mean."""
        return self._tokenizers[language].words

    def __call__(self, chunk: Chunk) -> Tokenized:
        numbers = [
            self._tokenizers[language].numbers(b"\n".join([*lines, b""]).decode())
            for language, lines in zip(chunk.languages, chunk.lines)
        ]
        lengths = np.array([np.diff(np.flatnonzero(side == LINE_END), prepend=-1) for side in numbers])
        tokens = lengths - 1
        empty = tokens.min(axis=0) == 0
        too_long = ~empty & (tokens.max(axis=0) > (self._max_tokens or np.inf))
        if (bad := empty | too_long).any():
            numbers = [side[np.repeat(~bad, some)] for side, some in zip(numbers, lengths)]
        dropped = {"empty": int(empty.sum()), "too_long": int(too_long.sum())}
        return Tokenized(dropped, len(bad) - int(bad.sum()), tuple(numbers))


class Encoder:
    """Tokens -> ids, by a table of words that were met before: the ids of row n are ``_ids[_ends[n] : _ends[n + 1]]``.
    The first row is the line end, of which EOS is made."""

    def __init__(self, codes: Path, vocab: Path, dtype: np.dtype) -> None:
        self._bpe = Bpe(codes)
        self._vocab = Vocab.read(vocab)
        self._rows = _Rows({"\n": LINE_END})
        self._ids = np.array([EOS], dtype)
        self._ends = np.array([0, 1])

    def rows(self, words: Sequence[str]) -> np.ndarray:
        """The rows of distinct words, the line end first: int64, shape (len(words),), valid until the next call."""
        if len(self._rows) > CACHED_WORDS:
            self._forget_all_but(words)
        rows = np.fromiter(map(self._rows.__getitem__, words), np.int64, len(words))
        subwords = self._bpe.segment_all(list(islice(self._rows, len(self._ends) - 1, None)))
        new = [self._vocab.encode(some) for some in subwords]
        lengths = np.fromiter(map(len, new), np.int64, len(new))
        self._ids = np.concatenate([self._ids, np.fromiter(chain.from_iterable(new), self._ids.dtype)])
        self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(lengths)])
        return rows

    def ids(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids of rows, one after the other, and for each row how many there are up to its end."""
        return gather(self._ids, self._ends, rows)

    def _forget_all_but(self, words: Sequence[str]) -> None:
        kept = [word for word in words if word in self._rows]
        self._ids, ends = self.ids(np.array([self._rows[word] for word in kept]))
        self._ends = np.concatenate([[0], ends])
        self._rows = _Rows(zip(kept, range(len(kept))))


class _Rows(dict[str, int]):
    """Strings as numbers by first occurrence."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number
