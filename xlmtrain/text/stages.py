"""The two stages of preparation that go through the whole text, a chunk at a time in worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import numpy as np

from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.files import Chunk, open_bytes
from xlmtrain.text.tokenizer import Tokenizer
from xlmtrain.text.vocab import EOS, UNK, Vocab

CACHED_WORDS = 1 << 18
LINE_END = 0
"""The number of the line end in a table of words."""


@dataclass(frozen=True)
class Tokenized:
    """A chunk of raw lines as tokens. ``text``: for each language the sentences, a line each, tokens separated by one
    space; line i of one language translates line i of the other. ``size``: bytes of raw text."""

    index: int
    size: int
    lines: int
    dropped: dict[str, int]
    sentences: int
    text: tuple[bytes, ...]

    @cached_property
    def word_counts(self) -> tuple[dict[str, int], ...]:
        """How often each word occurs, for each language; counted when asked for."""
        return tuple(
            {word.decode(): count for word, count in Counter(text.replace(b"\n", b" ").split(b" ")[:-1]).items()}
            for text in self.text
        )


class TokenizeChunk:
    """Raw lines -> tokens; lines that cannot be used are dropped, on both sides of a pair."""

    def __init__(self, settings: TextConfig, languages: list[str]) -> None:
        self._max_tokens = settings.max_tokens
        self._tokenizers = {language: Tokenizer(language, settings) for language in languages}

    def __call__(self, chunk: Chunk) -> Tokenized:
        dropped = {"empty": 0, "too_long": 0}
        kept: list[tuple[str, ...]] = []
        for sentences in zip(*map(self._tokenize, chunk.languages, chunk.lines)):
            if reason := self._reason_to_drop(sentences):
                dropped[reason] += 1
            else:
                kept.append(sentences)
        return Tokenized(
            index=chunk.index,
            size=chunk.size,
            lines=len(chunk.lines[0]),
            dropped=dropped,
            sentences=len(kept),
            text=tuple("".join(f"{side}\n" for side in column).encode() for column in zip(*kept))
            or tuple(b"" for _ in chunk.languages),
        )

    def _tokenize(self, language: str, lines: list[bytes]) -> list[str]:
        tokenize = self._tokenizers[language].text
        return [tokenize(line.decode()) for line in lines]

    def _reason_to_drop(self, sentences: tuple[str, ...]) -> str | None:
        if not all(sentences):
            return "empty"
        if self._max_tokens and max(sentence.count(" ") for sentence in sentences) >= self._max_tokens:
            return "too_long"
        return None


@dataclass(frozen=True)
class TokenChunk:
    """Some tokenized sentences of one side of a raw text, as in ``Tokenized.text``."""

    index: int
    side: int
    text: bytes


def read_tokens(index: int, side: int, path: Path, target_bytes: int) -> Iterator[TokenChunk]:
    """The sentences of a tokenized file in chunks of about ``target_bytes``."""
    with open_bytes(path) as file:
        while text := file.read(target_bytes):
            yield TokenChunk(index, side, text + file.readline())


@dataclass(frozen=True)
class Encoded:
    """Ids of a chunk: ``ids`` holds its sentences one after the other, EOS after each; ``lengths`` counts EOS."""

    index: int
    side: int
    size: int
    words: int
    unknown: int
    ids: np.ndarray
    lengths: np.ndarray


class EncodeChunk:
    """Tokens -> ids, by a table of the words met so far."""

    def __init__(self, codes: Path, vocab: Path, dtype: np.dtype) -> None:
        self._bpe = Bpe(codes)
        self._vocab = Vocab.read(vocab)
        self._table = _WordTable(self._encode, dtype)

    def __call__(self, chunk: TokenChunk) -> Encoded:
        if len(self._table) > CACHED_WORDS:
            self._table.forget()
        words = chunk.text.removesuffix(b"\n").replace(b"\n", b" \n ").split(b" ")
        words.append(b"\n")
        numbers = self._table.numbers(words)
        ids, ends = self._table.ids(numbers)
        lengths = np.diff(ends[numbers == LINE_END], prepend=0)
        unknown = int(np.count_nonzero(ids == UNK))
        return Encoded(chunk.index, chunk.side, len(chunk.text), len(words) - len(lengths), unknown, ids, lengths)

    def _encode(self, words: list[bytes]) -> list[list[int]]:
        subwords = self._bpe.segment_all([word.decode() for word in words])
        return [self._vocab.encode(some) for some in subwords]


class _WordTable(dict[bytes, int]):
    """Words, UTF-8, as numbers by first occurrence, and the ids of each: those of word n are
    ``_ids[_ends[n] : _ends[n + 1]]``."""

    def __init__(self, encode: Callable[[list[bytes]], list[list[int]]], dtype: np.dtype) -> None:
        super().__init__()
        self._encode, self._dtype = encode, dtype
        self.forget()

    def forget(self) -> None:
        """Leave nothing but the line end, of which EOS is made."""
        self.clear()
        self[b"\n"] = LINE_END
        self._ids = np.array([EOS], self._dtype)
        self._ends = np.array([0, 1])

    def __missing__(self, word: bytes) -> int:
        number = self[word] = len(self)
        return number

    def numbers(self, words: list[bytes]) -> np.ndarray:
        """The words' numbers, int64, shape (len(words),); new words are encoded, all at once."""
        numbers = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        new = self._encode(list(islice(self, len(self._ends) - 1, None)))
        lengths = np.fromiter(map(len, new), np.int64, len(new))
        self._ids = np.concatenate([self._ids, np.fromiter(chain.from_iterable(new), self._dtype)])
        self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(lengths)])
        return numbers

    def ids(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids of words, one after the other, and for each word how many there are up to its end."""
        starts = self._ends[numbers]
        lengths = self._ends[numbers + 1] - starts
        ends = np.cumsum(lengths)
        return self._ids[np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])], ends
