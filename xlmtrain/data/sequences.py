"""Token sequences in the layouts of the original XLM, before masking.

Letters: B sequences, T positions. EOS (``</s>``) starts and ends every sentence. With a tokenizer of its own, a model
may have another id at the start: ``special.bos``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlmtrain.data.disk_array import DiskArray
from xlmtrain.text.vocab import XLM_IDS, SpecialIds


class SequenceBatch(NamedTuple):
    """B sequences, padded to T tokens. All arrays are int64.

    ``tokens``, ``positions``, ``languages``: (B, T). ``lengths``: (B,), tokens before the padding.
    """

    tokens: np.ndarray
    positions: np.ndarray
    languages: np.ndarray
    lengths: np.ndarray


def windows(ids: DiskArray, starts: np.ndarray, length: int) -> np.ndarray:
    """Return windows of running text, (len(starts), length) int64; they wrap around at the end of the corpus."""
    begins = starts % len(ids)
    ends = begins + length
    if ends.max() > len(ids):  # a window that wraps around is read as two spans
        wrapped = np.flatnonzero(ends > len(ids))
        begins = np.insert(begins, wrapped + 1, 0)
        ends = np.insert(np.minimum(ends, len(ids)), wrapped + 1, ends[wrapped] - len(ids))
    return ids.gather_spans(begins.tolist(), ends.tolist()).reshape(-1, length).astype(np.int64)


def window_sequences(tokens: np.ndarray, language: int) -> SequenceBatch:
    """Return full sequences ``tokens`` (B, T) of one language, with positions from 0."""
    count, length = tokens.shape
    positions = np.broadcast_to(np.arange(length), tokens.shape)
    return SequenceBatch(tokens, positions, np.full_like(tokens, language), np.full(count, length))


def sentence_sequences(sentences: list[np.ndarray], language: int, special: SpecialIds = XLM_IDS) -> SequenceBatch:
    """Return single sentences as ``</s> w .. </s> <pad> ..``. Each array of ``sentences`` ends with EOS."""
    lengths = np.array([len(sentence) + 1 for sentence in sentences])
    column = np.arange(lengths.max())
    valid = column < lengths[:, None]
    tokens = np.where(valid, special.bos, special.pad)
    tokens[valid & (column > 0)] = np.concatenate(sentences)
    return window_sequences(tokens, language)._replace(lengths=lengths)


def pair_sequences(
    first: list[np.ndarray], second: list[np.ndarray], languages: Sequence[int], special: SpecialIds = XLM_IDS
) -> SequenceBatch:
    """Return sentence pairs as TLM reads them: ``</s> a .. </s> </s> b .. </s> <pad> ..``.

    Each array of ``first`` and ``second`` ends with EOS. Positions restart at 0 with the second sentence, and the
    language changes there. Padding has position 0, because larger ones could exceed the position table.
    """
    starts = np.array([len(sentence) + 1 for sentence in first])
    lengths = starts + np.array([len(sentence) + 1 for sentence in second])
    column = np.arange(lengths.max())
    valid, in_second = column < lengths[:, None], column >= starts[:, None]
    tokens = np.where(valid, special.bos, special.pad)
    tokens[(column > 0) & ~in_second] = np.concatenate(first)
    tokens[valid & (column > starts[:, None])] = np.concatenate(second)
    positions = np.where(valid, column - np.where(in_second, starts[:, None], 0), 0)
    return SequenceBatch(tokens, positions, np.where(in_second, languages[1], languages[0]), lengths)
