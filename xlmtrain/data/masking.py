"""Masking for MLM and TLM: which tokens to predict, and what the model reads in their place."""

from __future__ import annotations

import numpy as np

from xlmtrain.config.data import MaskConfig
from xlmtrain.data.sequences import SequenceBatch
from xlmtrain.text.vocab import Vocab


class Masker:
    """Selects and replaces tokens according to the ``mask`` settings.

    ``vocab`` has the frequencies; those of special tokens are 0, so that an exponent above 0 never selects them.
    ``<pad>`` and the first position of a sequence are never selected. EOS and UNK may be, as in the original XLM, but
    no special token of a tokenizer is selected or drawn.
    """

    def __init__(self, config: MaskConfig, vocab: Vocab) -> None:
        self._config = config
        self._mask, self._maskable = vocab.special.mask, vocab.maskable
        self._drawn, counts = np.flatnonzero(vocab.maskable), vocab.counts
        self._weights: np.ndarray | None = None
        if config.inverse_frequency_exponent > 0:
            weights = np.maximum(counts, 1) ** -float(config.inverse_frequency_exponent)
            self._weights = np.where(counts > 0, weights, 0.0)

    def __call__(self, sequences: SequenceBatch, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the masked tokens (B, T) int64, and the positions to predict (B, T) bool."""
        selected = self._select(sequences, rng)
        return self._replace(sequences.tokens, selected, rng), selected

    def _select(self, sequences: SequenceBatch, rng: np.random.Generator) -> np.ndarray:
        maskable = maskable_positions(sequences) & self._maskable[sequences.tokens]
        if self._weights is None:
            return (rng.random(sequences.tokens.shape) < self._config.prob) & maskable
        weights = np.where(maskable, self._weights[sequences.tokens], 0.0).ravel()
        count = min(int(np.ceil(self._config.prob * maskable.sum())), int(np.count_nonzero(weights)))
        # The smallest of Exp(1)/weight are a weighted sample without replacement (Efraimidis & Spirakis 2006).
        with np.errstate(divide="ignore"):
            keys = rng.standard_exponential(weights.size) / weights
        selected = np.zeros(weights.size, dtype=bool)
        selected[np.argpartition(keys, max(count - 1, 0))[:count]] = True
        return selected.reshape(maskable.shape)

    def _replace(self, tokens: np.ndarray, selected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Replace a share of the selected tokens by ``<mask>``, another by random tokens, and leave the others."""
        masked, place = tokens.copy(), np.flatnonzero(selected)
        choice = rng.random(len(place))
        replacement = self._drawn[rng.integers(0, len(self._drawn), size=len(place))]
        replacement[choice < self._config.mask_token_prob] = self._mask
        replaced = choice < self._config.mask_token_prob + self._config.random_token_prob
        masked.reshape(-1)[place[replaced]] = replacement[replaced]
        return masked


def maskable_positions(sequences: SequenceBatch) -> np.ndarray:
    """Return (B, T) bool: all positions but padding and the first of each sequence."""
    maskable = np.arange(sequences.tokens.shape[1]) < sequences.lengths[:, None]
    maskable[:, 0] = False
    return maskable
