"""Words of a sentence, each with its subwords."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from xlmtrain.text.pipeline import TextPipeline
from xlmtrain.text.tokenizer_json import TokenizerVocab
from xlmtrain.text.vocab import CONTINUATION, Vocab, join_subwords

Sentence = str | Sequence[str]
"""Raw text, or its words."""


class SplitSentence(NamedTuple):
    """``starts``: index of each word's first subword in ``ids`` (N,) and ``pieces``, what :func:`joined` reads."""

    words: list[str]
    starts: np.ndarray
    ids: np.ndarray
    pieces: list[Any]


def split_sentence(text: TextPipeline, sentence: Sentence, language: str) -> SplitSentence:
    """Return the words of a sentence and their subwords."""
    own = isinstance(text.vocab, TokenizerVocab)
    if not isinstance(sentence, str):
        parts = ids_of_words(text, sentence, language)
        starts, ids = np.cumsum([0, *map(len, parts)])[:-1].astype(int), [*chain.from_iterable(parts)]
        pieces = ids if own else [piece for word in sentence for piece in text.tokens(word, language) or [word]]
        return SplitSentence(list(sentence), starts, np.array(ids, int), pieces)
    ids, pieces = text.ids(sentence, language), text.tokens(sentence, language)
    if own:
        pieces, starts = ids, np.flatnonzero(text.vocab.begins_word(np.array(ids, int)))
    else:
        starts = np.flatnonzero([i == 0 or not pieces[i - 1].endswith(CONTINUATION) for i in range(len(pieces))])
    words = [joined(text.vocab, pieces[start:end]) for start, end in zip(starts, [*starts[1:], len(ids)])]
    return SplitSentence(words, starts, np.array(ids, int), pieces)


def ids_of_words(text: TextPipeline, words: Sequence[str], language: str) -> list[list[int]]:
    """Return the ids of each word of a sentence; a word of blanks alone is unknown text."""
    special = text.vocab.special
    unknown = special.unk if special.unk >= 0 else special.mask
    # A blank begins a word inside a sentence, in the tokenizers that keep blanks.
    return [text.ids(" " * (i > 0) + word, language) or [unknown] for i, word in enumerate(words)]


def joined(vocab: Vocab, pieces: Sequence[Any]) -> str:
    """Return the text of subwords: ids of a tokenizer, else text as BPE writes it."""
    return vocab.decode(pieces).strip() if isinstance(vocab, TokenizerVocab) else join_subwords(" ".join(pieces))
