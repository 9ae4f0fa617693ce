"""BLEU and chrF of translations against one reference: sacreBLEU on raw text, and the figure of multi-bleu.perl."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

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
    return bleu_of_counts(ngram_counts(hypotheses, references).tolist())


def ngram_counts(
    hypotheses: Sequence[str], references: Sequence[str], without: Sequence[str] | None = None
) -> np.ndarray:
    """Return what BLEU follows from, (10,): matching n-grams, n-grams by n, words of hypotheses and of references.

    The counts of a text are the sums of those of its parts. ``without``: lines whose n-grams do not match in theirs.
    """
    counts = np.zeros(2 * len(ORDERS) + 2)
    for hypothesis, reference, other in zip(hypotheses, references, without or [""] * len(references), strict=True):
        sides = hypothesis.split(), reference.split(), other.split()
        counts[-2:] += [len(side) for side in sides[:2]]
        for n in ORDERS:
            found, expected, excluded = (Counter(zip(*(side[i:] for i in range(n)))) for side in sides)
            counts[n - 1] += sum(count for ngram, count in (found & expected).items() if ngram not in excluded)
            counts[len(ORDERS) + n - 1] += found.total()
    return counts


def bleu_of_counts(counts: Sequence[float]) -> TokenizedBleu:
    """Return the BLEU of a text with these :func:`ngram_counts`."""
    *ngrams, hypothesis, reference = counts
    precisions = [match / max(total, 1) for match, total in zip(ngrams[: len(ORDERS)], ngrams[len(ORDERS) :])]
    penalty = math.exp(min(0.0, 1 - reference / hypothesis)) if hypothesis else 0.0
    mean = math.exp(sum(map(math.log, precisions)) / len(precisions)) if all(precisions) else 0.0
    parts = tuple(100 * precision for precision in precisions)
    return TokenizedBleu(100 * penalty * mean, parts, penalty, int(hypothesis), int(reference))


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
