"""Masking: which tokens are to be predicted, and what stands in their place. MLM and TLM both come here."""

from __future__ import annotations

import numpy as np

from xlmtrain.config.schema import MaskConfig
from xlmtrain.data.sequences import Sequences
from xlmtrain.text.vocab import MASK


class Masker:
    """Chooses and replaces tokens as ``mask`` in the settings says.

    ``counts``: (vocabulary,) how often each word occurs; 0 for special symbols, which a frequency exponent above 0
    never chooses. ``<pad>`` and the first position of a row are never chosen; EOS and UNK may be.
    """

    def __init__(self, config: MaskConfig, counts: np.ndarray) -> None:
        self._config = config
        self._vocab_size = len(counts)
        self._weights: np.ndarray | None = None
        if config.inverse_frequency_exponent > 0:
            self._weights = np.where(
                counts > 0, np.maximum(counts, 1) ** -float(config.inverse_frequency_exponent), 0.0
            )

    def __call__(self, rows: Sequences, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Masked tokens (B, T), and which of them to predict, (B, T) bool."""
        selected = self._select(rows, rng)
        return self._replace(rows.tokens, selected, rng), selected

    def _select(self, rows: Sequences, rng: np.random.Generator) -> np.ndarray:
        eligible = maskable_positions(rows)
        if self._weights is None:
            return (rng.random(rows.tokens.shape) < self._config.prob) & eligible
        weights = np.where(eligible, self._weights[rows.tokens], 0.0).ravel()
        count = min(int(np.ceil(self._config.prob * eligible.sum())), int(np.count_nonzero(weights)))
        # The smallest of Exp(1)/weight are a sample without replacement in proportion to the weights
        # (Efraimidis & Spirakis 2006).
        with np.errstate(divide="ignore"):
            keys = rng.standard_exponential(weights.size) / weights
        selected = np.zeros(weights.size, dtype=bool)
        selected[np.argpartition(keys, max(count - 1, 0))[:count]] = True
        return selected.reshape(eligible.shape)

    def _replace(self, tokens: np.ndarray, selected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``<mask>`` for a share of the selected, a random entry of the vocabulary for another, the rest untouched."""
        masked, place = tokens.copy(), np.flatnonzero(selected)
        choice = rng.random(len(place))
        words = rng.integers(0, self._vocab_size, size=len(place))
        words[choice < self._config.mask_token_prob] = MASK
        replaced = choice < self._config.mask_token_prob + self._config.random_token_prob
        masked.reshape(-1)[place[replaced]] = words[replaced]
        return masked


def maskable_positions(rows: Sequences) -> np.ndarray:
    """(B, T) bool: all but padding and the first position of each row, which is its anchor."""
    eligible = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]
    eligible[:, 0] = False
    return eligible
