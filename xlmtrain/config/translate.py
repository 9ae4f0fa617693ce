"""Settings of translation: how translations are searched for, and how lines are batched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, CheckedSettings, Range, ranged


@dataclass
class TranslationConfig(CheckedSettings):
    """Search and batching. Translations in fp32 do not depend on ``batch_tokens`` and ``window``."""

    beam: int = ranged(4, ABOVE_ZERO)
    """Width of the beam search; 1 takes the most probable token at each place (greedy search)."""

    length_penalty: float = ranged(1.0, Range(lambda value: abs(value) <= 10, "is not between -10 and 10"))
    """A translation of n tokens scores (sum of its log-probabilities) / n^length_penalty; more favours length."""

    n_best: int = ranged(1, ABOVE_ZERO)
    """Translations of each line, at most beam of them, the best first."""

    temperature: float | None = ranged(None, ABOVE_ZERO)
    """Draw each token from the model's distribution, sharper below 1 and flatter above, instead of searching."""

    seed: int = ranged(0, NOT_NEGATIVE)
    """For temperature: another seed draws other translations."""

    max_length_ratio: float = ranged(1.5, ABOVE_ZERO)
    """A translation of a source of n tokens has at most max_length_ratio * n + max_length_extra tokens; both count the
    delimiters before and after them."""

    max_length_extra: int = ranged(10, NOT_NEGATIVE)
    """Tokens of a translation beyond max_length_ratio."""

    batch_tokens: int = ranged(4096, ABOVE_ZERO)
    """Tokens of a batch, counted as if each prefix of the beam search reached the longest translation allowed."""

    window: int = ranged(2048, ABOVE_ZERO)
    """Lines read ahead and sorted by length. With 1, each line is translated before the next one is read."""

    def problems(self) -> Iterator[str]:
        if self.n_best > self.beam:
            yield f"n_best: {self.n_best} translations need a beam as wide; the beam is {self.beam}"
        if self.temperature is not None and self.n_best > 1:
            yield "temperature: draws one translation, so n_best is 1"
