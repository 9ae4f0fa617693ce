"""Settings of the evaluation during training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, ranged


class Pooling(str, Enum):
    """Sentence vector from hidden states: their mean over all tokens, delimiters included, or the first token's."""

    mean = "mean"
    first = "first"


def column_problems(columns: Sequence[str]) -> Iterator[str]:
    """Yield why ``columns`` cannot describe a table of labelled text. Empty is right."""
    counts = {name: columns.count(name) for name in ("label", "text", "language", "_")}
    if columns and (
        sum(counts.values()) < len(columns)
        or (counts["label"], counts["language"] > 1) != (1, False)
        or counts["text"] not in (1, 2)
    ):
        yield f"columns: {list(columns)}; give label once, text once or twice, and _ for every other column"


@dataclass
class ZeroShotProbeConfig:
    """Labelled text in the formats of ``xlmtrain finetune``: lines of a label and one or two texts, separated by tabs,
    or tables like those of XNLI, PAWS-X and GLUE."""

    train: dict[str, str] = field(default_factory=dict)
    """Language -> file to train the probe on, e.g. ``{en: train.en.tsv}``."""

    test: dict[str, str] = field(default_factory=dict)
    """Language -> file to test the probe on, e.g. ``{en: test.en.tsv, de: test.de.tsv}``. At least one language must
    not be in ``train``."""

    columns: list[str] = field(default_factory=list)
    """As ``task.columns`` of ``xlmtrain finetune``."""

    def problems(self) -> Iterator[str]:
        yield from column_problems(self.columns)
        if bool(self.train) != bool(self.test):
            yield "train: train and test are needed together; one of them is missing"


@dataclass
class EvaluateConfig:
    """Evaluation during training."""

    every: int = ranged(1000, NOT_NEGATIVE)
    """Steps between evaluations. 0: only before the first and after the last step."""

    batch_tokens: int = ranged(8192, ABOVE_ZERO)
    """Tokens in a forward pass on running text (MLM, CLM); most tokens of the translations of a batch."""

    pairs_per_batch: int = ranged(32, ABOVE_ZERO)
    """Sentence pairs in a forward pass (TLM, cloze on parallel text). They are padded to the same length, and their
    masks are drawn together, so the metrics depend on this number."""

    max_tokens: int = ranged(0, NOT_NEGATIVE)
    """Tokens to read of each validation set. 0: all."""

    max_pairs: int = ranged(0, NOT_NEGATIVE)
    """Validation pairs on which to measure cross-lingual transfer; 1,000 suffice, 0 measures none. Cloze on parallel
    text: words of one side are masked, and predicted without (``valid/cloze_mono_acc``) and with the translation
    (``valid/cloze_parallel_acc``). Bitext retrieval, P@1: each sentence's translation is searched among all of them, by
    the sentence vectors of every layer (``valid/retrieval_acc``; the best layer is chosen on these pairs, so it is
    optimistic)."""

    max_translations: int = ranged(0, NOT_NEGATIVE)
    """Validation pairs to translate by greedy search, in each direction that is trained; 0: none. ``valid/mt_bleu`` and
    ``valid/de-en_mt_bleu`` compare them with the other side: BLEU of the words that the vocabulary gives."""

    round_trip: int = ranged(0, NOT_NEGATIVE)
    """Validation sentences of each language to translate there and back, by greedy search; 0: none. Their BLEU against
    the original, ``valid/round_trip_bleu``, needs no pairs. What is in the translation, too, does not match, so a model
    that copies its source has 0. ``valid/de-en_copied_share``: the share of the translations' words that are copied."""

    bilingual_lexicon: str | None = None
    """File of words and their translations, e.g. ``en-de.tsv``, in the formats of ``xlmtrain evaluate``. They are
    searched in the embedding table: bilingual lexicon induction, ``bli/en-de_csls_p1``."""

    zero_shot_probe: ZeroShotProbeConfig = field(default_factory=ZeroShotProbeConfig)
    """Zero-shot classification, e.g. ``{train: {en: train.en.tsv}, test: {de: test.de.tsv}}``: a linear probe is
    trained on the hidden states of some languages and tested on others (``valid/zero_shot_acc``). The model's weights
    are not changed. Compare with the accuracy before the first step, which comes from shared surface forms."""

    metric: str = "valid/mlm_ppl"
    """Metric that selects the best checkpoint and decides on early stopping. ``..._ppl``: lower is better;
    ``..._acc``, ``..._bleu``: higher is better."""

    patience: int = ranged(0, NOT_NEGATIVE)
    """Stop training after this many evaluations in a row without a new best. 0: never."""

    sample_predictions: int = ranged(4, NOT_NEGATIVE)
    """Masked sequences per validation set to show in TensorBoard, with the model's predictions; likewise translations,
    if there are any."""

    def problems(self) -> Iterator[str]:
        if not self.metric.endswith(("_ppl", "_acc", "_bleu")):
            yield f"metric: {self.metric} does not end in _ppl, _acc or _bleu"
