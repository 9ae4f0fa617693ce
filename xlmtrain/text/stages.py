"""The two stages of preparation that go through the whole text, a chunk at a time in worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from xlmtrain.config.prepare import TextConfig
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.files import Chunk
from xlmtrain.text.tokenizer import Tokenizer
from xlmtrain.text.vocab import EOS, UNK, Vocab

CACHED_WORDS = 1 << 18


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
    word_counts: tuple[dict[str, int], ...]


class TokenizeChunk:
    """Raw lines -> tokens; lines that cannot be used are dropped, on both sides of a pair."""

    def __init__(self, settings: TextConfig, languages: list[str]) -> None:
        self._max_tokens = settings.max_tokens
        self._tokenizers = {language: Tokenizer(language, settings) for language in languages}

    def __call__(self, chunk: Chunk) -> Tokenized:
        sides = [self._tokenizers[language] for language in chunk.languages]
        kept: list[list[list[str]]] = []
        dropped = {"empty": 0, "too_long": 0}
        for aligned in zip(*chunk.lines):
            sentences = [tokenize(line.decode()) for tokenize, line in zip(sides, aligned)]
            if reason := self._reason_to_drop(sentences):
                dropped[reason] += 1
            else:
                kept.append(sentences)
        columns = [[sentences[side] for sentences in kept] for side in range(len(sides))]
        return Tokenized(
            index=chunk.index,
            size=chunk.size,
            lines=len(chunk.lines[0]),
            dropped=dropped,
            sentences=len(kept),
            text=tuple("".join(f"{' '.join(tokens)}\n" for tokens in column).encode() for column in columns),
            word_counts=tuple(Counter(word for tokens in column for word in tokens) for column in columns),
        )

    def _reason_to_drop(self, sentences: list[list[str]]) -> str | None:
        if not all(sentences):
            return "empty"
        if self._max_tokens and max(map(len, sentences)) > self._max_tokens:
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
    with path.open("rb") as file:
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
    """Tokens -> ids. Words met often are remembered."""

    def __init__(self, codes: Path, vocab: Path, dtype: np.dtype) -> None:
        self._bpe = Bpe(codes)
        self._vocab = Vocab.read(vocab)
        self._dtype = dtype
        self._word_ids = lru_cache(CACHED_WORDS)(self._encode_word)

    def __call__(self, chunk: TokenChunk) -> Encoded:
        ids: list[int] = []
        ends: list[int] = []
        words = 0
        for line in chunk.text.decode().removesuffix("\n").split("\n"):
            tokens = line.split(" ")
            words += len(tokens)
            for word in tokens:
                ids += self._word_ids(word)
            ids.append(EOS)
            ends.append(len(ids))
        array = np.array(ids, dtype=self._dtype)
        lengths = np.diff(np.array(ends, dtype=np.int64), prepend=0)
        unknown = int(np.count_nonzero(array == UNK))
        return Encoded(chunk.index, chunk.side, len(chunk.text), words, unknown, array, lengths)

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return tuple(self._vocab.encode(self._bpe.segment(word)))
