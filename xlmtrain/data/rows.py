"""Rows of tokens before any objective touched them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xlmtrain.data.stored import StoredArray
from xlmtrain.text.vocab import EOS, PAD


@dataclass
class Rows:
    """B rows of T tokens. All arrays int64.

    ``tokens``, ``positions``, ``languages``: (B, T). ``lengths``: (B,), tokens before the padding.
    """

    tokens: np.ndarray
    positions: np.ndarray
    languages: np.ndarray
    lengths: np.ndarray


def windows(ids: StoredArray, starts: np.ndarray, length: int, language: int) -> Rows:
    """Windows of running text, (len(starts), length), wrapping around at the end of the corpus. No padding."""
    begins = (starts % len(ids)).tolist()
    rows = ids.pieces(begins, [min(begin + length, len(ids)) for begin in begins])
    rows = [row if len(row) == length else np.concatenate([row, ids[: length - len(row)]]) for row in rows]
    return stream_rows(np.concatenate(rows).reshape(len(rows), length).astype(np.int64), language)


def stream_rows(tokens: np.ndarray, language: int) -> Rows:
    """Full rows (B, T) of one language, positions from 0."""
    count, length = tokens.shape
    positions = np.broadcast_to(np.arange(length), tokens.shape)
    return Rows(tokens, positions, np.full_like(tokens, language), np.full(count, length))


def sentence_rows(sentences: list[np.ndarray], language: int) -> Rows:
    """Single sentences as ``</s> w .. </s> <pad> ..``. Sentences come with their EOS."""
    lengths = np.array([len(sentence) + 1 for sentence in sentences])
    tokens = np.full((len(sentences), lengths.max()), PAD, dtype=np.int64)
    for row, sentence, length in zip(tokens, sentences, lengths):
        row[0] = EOS
        row[1:length] = sentence
    return replace(stream_rows(tokens, language), lengths=lengths)


def pair_rows(first: list[np.ndarray], second: list[np.ndarray], languages: tuple[int, int]) -> Rows:
    """Sentence pairs as TLM reads them: ``</s> a .. </s> </s> b .. </s> <pad> ..``.

    Sentences come with their EOS. Positions start again at the second sentence; the language is the first's up to
    there, then the second's. Padding has position 0: counted on, a short row beside a long one would leave the table.
    """
    starts = np.array([len(sentence) + 1 for sentence in first])
    lengths = starts + np.array([len(sentence) + 1 for sentence in second])
    tokens = np.full((len(first), lengths.max()), PAD, dtype=np.int64)
    for row, a, b, start, length in zip(tokens, first, second, starts, lengths):
        row[0] = row[start] = EOS
        row[1:start] = a
        row[start + 1 : length] = b
    column = np.arange(tokens.shape[1])
    in_second = column >= starts[:, None]
    positions = np.where(column < lengths[:, None], column - np.where(in_second, starts[:, None], 0), 0)
    return Rows(tokens, positions, np.where(in_second, languages[1], languages[0]), lengths)
