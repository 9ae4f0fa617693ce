"""Noise for denoising: words are shuffled locally, dropped and blanked (Lample et al. 2018, section 3.3).

Letters: B sentences, T positions. A word is one subword, or all subwords of a word of the text.
"""

from __future__ import annotations

import numpy as np

from xlmtrain.config.data import NoiseConfig
from xlmtrain.data.sequences import SequenceBatch, sentence_sequences
from xlmtrain.text.vocab import Vocab


class Noise:
    """Adds noise to sentences. ``vocab`` says which subwords begin a word."""

    def __init__(self, config: NoiseConfig, vocab: Vocab) -> None:
        self._config, self._vocab = config, vocab

    def __call__(self, sequences: SequenceBatch, rng: np.random.Generator) -> SequenceBatch:
        """Return a noisy copy of single sentences of one language; their ``</s>`` stay where they are.

        Each kind of noise draws a number per position, row by row; one that is off draws none.
        """
        tokens, lengths = sequences.tokens, sequences.lengths
        if self._config.shuffle_distance:
            tokens = self._shuffle(tokens, lengths, rng)
        if self._config.drop_prob:
            kept = self._kept(tokens, lengths, rng)
            sentences = [row[1:length][keep[1:length]] for row, length, keep in zip(tokens, lengths, kept)]
            sequences = sentence_sequences(sentences, int(sequences.languages[0, 0]), self._vocab.special)
            tokens, lengths = sequences.tokens, sequences.lengths
        if self._config.blank_prob:
            numbers, words = self._draw(tokens, lengths, rng)
            tokens = np.where((numbers < self._config.blank_prob) & (words > 0), self._vocab.special.mask, tokens)
        return SequenceBatch(tokens, sequences.positions, sequences.languages, lengths)

    def _draw(self, tokens: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a number in [0, 1) for each position, the same for all of a word, and the word's number from 1.

        Both are (B, T). Delimiters and padding have the number 0.
        """
        column = np.arange(tokens.shape[1])
        inside = (column > 0) & (column < lengths[:, None] - 1)
        begins = inside & self._vocab.begins_word(tokens) if self._config.whole_words else inside
        first = np.maximum.accumulate(np.where(begins, column, 0), axis=1)
        numbers = rng.random((len(tokens), tokens.shape[1] - 1))
        numbers = np.take_along_axis(numbers, np.minimum(first, tokens.shape[1] - 2), axis=1)
        return numbers, np.where(inside, begins.cumsum(axis=1), 0)

    def _shuffle(self, tokens: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sort the words of each sentence by their number plus noise in [0, ``shuffle_distance``)."""
        numbers, words = self._draw(tokens, lengths, rng)
        keys = np.where(words > 0, words + self._config.shuffle_distance * numbers, np.inf)
        keys[:, 0] = -np.inf
        return np.take_along_axis(tokens, keys.argsort(axis=1, kind="stable"), axis=1)

    def _kept(self, tokens: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return (B, T) bool: which tokens are not dropped. If no word is left, one of them is put back."""
        numbers, words = self._draw(tokens, lengths, rng)
        kept = (numbers >= self._config.drop_prob) | (words == 0)
        for row in np.flatnonzero((words.max(axis=1) > 0) & ~(kept & (words > 0)).any(axis=1)):
            kept[row] |= words[row] == rng.integers(1, words[row].max() + 1)
        return kept
