"""Rows of tokens before any objective touched them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xlmtrain.data.disk_array import DiskArray
from xlmtrain.text.vocab import EOS, PAD


@dataclass
class Sequences:
    """B rows of T tokens. All arrays int64.

    ``tokens``, ``positions``, ``languages``: (B, T). ``lengths``: (B,), tokens before the padding.
    """

    tokens: np.ndarray
    positions: np.ndarray
    languages: np.ndarray
    lengths: np.ndarray

    def __getitem__(self, place: slice) -> Sequences:
        """Some of the rows."""
        return Sequences(self.tokens[place], self.positions[place], self.languages[place], self.lengths[place])

    @property
    def padded(self) -> bool:
        """Whether a row is shorter than T."""
        return bool(self.lengths.min() < self.tokens.shape[1])


def concat_sequences(rows: Sequence[Sequences]) -> Sequences:
    """The rows of several, all of the same T, one after the other."""
    fields = zip(*((part.tokens, part.positions, part.languages, part.lengths) for part in rows))
    return Sequences(*(np.concatenate(parts) for parts in fields))


def windows(ids: DiskArray, starts: np.ndarray, length: int) -> np.ndarray:
    """Windows of running text, (len(starts), length) int64, wrapping around at the end of the corpus."""
    begins = starts % len(ids)
    ends = begins + length
    if ends.max() > len(ids):  # what goes around is read as two stretches
        around = np.flatnonzero(ends > len(ids))
        begins = np.insert(begins, around + 1, 0)
        ends = np.insert(np.minimum(ends, len(ids)), around + 1, ends[around] - len(ids))
    return ids.joined(begins.tolist(), ends.tolist()).reshape(-1, length).astype(np.int64)


def stream_sequences(tokens: np.ndarray, language: int) -> Sequences:
    """Full rows (B, T) of one language, positions from 0."""
    count, length = tokens.shape
    positions = np.broadcast_to(np.arange(length), tokens.shape)
    return Sequences(tokens, positions, np.full_like(tokens, language), np.full(count, length))


def sentence_sequences(sentences: list[np.ndarray], language: int) -> Sequences:
    """Single sentences as ``</s> w .. </s> <pad> ..``. Sentences come with their EOS."""
    lengths = np.array([len(sentence) + 1 for sentence in sentences])
    column = np.arange(lengths.max())
    inside = column < lengths[:, None]
    tokens = np.where(inside, EOS, PAD)
    tokens[inside & (column > 0)] = np.concatenate(sentences)
    return replace(stream_sequences(tokens, language), lengths=lengths)


def pair_sequences(first: list[np.ndarray], second: list[np.ndarray], languages: tuple[int, int]) -> Sequences:
    """Sentence pairs as TLM reads them: ``</s> a .. </s> </s> b .. </s> <pad> ..``.

    Sentences come with their EOS. Positions start again at the second sentence; the language is the first's up to
    there, then the second's. Padding has position 0: counted on, a short row beside a long one would leave the table.
    """
    starts = np.array([len(sentence) + 1 for sentence in first])
    lengths = starts + np.array([len(sentence) + 1 for sentence in second])
    column = np.arange(lengths.max())
    inside, in_second = column < lengths[:, None], column >= starts[:, None]
    tokens = np.where(inside, EOS, PAD)
    tokens[(column > 0) & ~in_second] = np.concatenate(first)
    tokens[inside & (column > starts[:, None])] = np.concatenate(second)
    positions = np.where(inside, column - np.where(in_second, starts[:, None], 0), 0)
    return Sequences(tokens, positions, np.where(in_second, languages[1], languages[0]), lengths)
