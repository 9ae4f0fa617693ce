"""BLEU and chrF of translations against one reference: sacreBLEU on raw text, and the figure of multi-bleu.perl."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from xlmtrain.errors import ConfigError

try:
    from sacrebleu.metrics import BLEU, CHRF
except ImportError:
    BLEU = CHRF = None

ORDERS = range(1, 5)


class TokenizedBleu(NamedTuple):
    """BLEU of tokenized text in percent, and its parts; as text, the line that multi-bleu.perl prints."""

    value: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    hypothesis_words: int
    reference_words: int

    def __str__(self) -> str:
        precisions = "/".join(f"{precision:.1f}" for precision in self.precisions)
        return (
            f"BLEU = {self.value:.2f}, {precisions} (BP={self.brevity_penalty:.3f}, "
            f"ratio={self.hypothesis_words / max(self.reference_words, 1):.3f}, hyp_len={self.hypothesis_words}, "
            f"ref_len={self.reference_words})"
        )


def tokenized_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> TokenizedBleu:
    """Return BLEU as multi-bleu.perl computes it: words by white space, cased, one reference, no smoothing.

    It depends on the tokenizer, so compare only text of the same one. Text without any words has 0.
    """
    matches, totals, words = Counter[int](), Counter[int](), [0, 0]
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        pair = hypothesis.split(), reference.split()
        words = [count + len(side) for count, side in zip(words, pair)]
        for n in ORDERS:
            found, expected = (Counter(zip(*(side[i:] for i in range(n)))) for side in pair)
            matches[n] += (found & expected).total()
            totals[n] += found.total()
    precisions = [matches[n] / max(totals[n], 1) for n in ORDERS]
    penalty = math.exp(min(0.0, 1 - words[1] / words[0])) if words[0] else 0.0
    mean = math.exp(sum(map(math.log, precisions)) / len(precisions)) if all(precisions) else 0.0
    return TokenizedBleu(100 * penalty * mean, tuple(100 * p for p in precisions), penalty, words[0], words[1])


def require_sacrebleu() -> None:
    """Raise ConfigError, saying how to install it, if the sacrebleu package is missing."""
    if BLEU is None:
        raise ConfigError("reference: needs the sacrebleu package; install it with: pip install sacrebleu")


def raw_text_scores(hypotheses: Sequence[str], references: Sequence[str]) -> Iterator[str]:
    """Yield sacreBLEU's BLEU and chrF of raw text, each a line with the signature that makes it comparable.

    Raises ConfigError without the sacrebleu package.
    """
    require_sacrebleu()
    for metric in (BLEU(), CHRF()):
        score = metric.corpus_score(hypotheses, [references])
        yield score.format(signature=str(metric.get_signature()))
