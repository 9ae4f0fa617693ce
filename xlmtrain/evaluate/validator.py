"""All evaluations of a training run: validation sets, cross-lingual transfer, zero-shot classification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xlmtrain.config.evaluate import EvaluateConfig
from xlmtrain.config.phases import combined_data
from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import parallel_cloze_sets, validation_sets
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.cloze import sample_predictions
from xlmtrain.evaluate.perplexity import evaluate_perplexity
from xlmtrain.evaluate.retrieval import retrieve, validation_pairs
from xlmtrain.evaluate.sentence_embeddings import embed_distributed
from xlmtrain.evaluate.translation import RoundTrip, TranslationBleu
from xlmtrain.evaluate.word_translation import lexicon_languages, read_lexicon, translate_words
from xlmtrain.evaluate.zero_shot import ZeroShotProbe
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.bpe import read_codes
from xlmtrain.text.pipeline import text_pipeline
from xlmtrain.text.tokenizer_json import TokenizerVocab


class CrossLingualEvaluation:
    """Retrieval among the validation pairs and translation of a lexicon, as configured in ``evaluate``.

    ``causal``: the model is trained by CLM only. Raises DataError for a lexicon that cannot be read, or has fewer than
    two entries in the vocabulary.
    """

    def __init__(self, config: EvaluateConfig, dataset: Dataset, max_positions: int, causal: bool) -> None:
        self._vocab, self._causal = dataset.vocab, causal
        self._entries: list[tuple[str, str]] = []
        if config.bilingual_lexicon:
            path = Path(config.bilingual_lexicon)
            self._entries, self._languages = read_lexicon(path), lexicon_languages(path, dataset.languages)
        self._texts: dict[str, dict[str, tuple[int, list[np.ndarray]]]] = {}  # pair -> language -> (id, sentences)
        for pair in dataset.pairs("valid") if config.max_pairs else []:
            if sides := validation_pairs(dataset, pair, max_positions, config.max_pairs):
                self._texts[pair] = {language: (dataset.language_id(language), ids) for language, ids in sides.items()}

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that the best checkpoint can be chosen by."""
        directions = [direction for pair in self._texts for direction in _directions(pair)]
        return [f"valid/{name}_retrieval_acc" for name in directions] + ["valid/retrieval_acc"] * bool(directions)

    def __call__(self, model: LanguageModel, distributed: Distributed, stop: Callable[[], bool]) -> dict[str, float]:
        """Return P@1 in % and MRR of bitext retrieval by the mean-pooled states of each layer, and BLI metrics.

        ``valid/{source}-{target}_retrieval_acc``: bitext retrieval, P@1 by cosine; the best layer is chosen on the
        evaluated set, so it is optimistic. ``valid/retrieval_acc``: the mean over directions. ``stop`` as in
        :func:`~xlmtrain.evaluate.sentence_embeddings.embed_distributed`.
        """
        metrics: dict[str, float] = {}
        for pair in self._texts:
            metrics |= self._retrieval(pair, model, distributed, stop)
        if chosen := [value for name, value in metrics.items() if name.startswith("valid/")]:
            metrics["valid/retrieval_acc"] = sum(chosen) / len(chosen)
        if self._entries:
            metrics |= distributed.run_on_all(lambda: self._word_translation(model, distributed))
        # Average over ranks: they decide on the best checkpoint, so the values must be equal to the last bit.
        totals = distributed.all_reduce_sum([*metrics.values()])
        return {name: total / distributed.world_size for name, total in zip(metrics, totals)}

    def _retrieval(
        self, pair: str, model: LanguageModel, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        vectors = embed_distributed(model, self._texts[pair], self._causal, distributed, stop)
        sentences = {lang: [self._vocab.decode(ids) for ids in rows] for lang, (_, rows) in self._texts[pair].items()}
        metrics: dict[str, float] = {}
        best: dict[str, float] = {}  # direction -> top1 of the best layer so far
        for layer in range(len(model.encoder.blocks) + 1):
            found = retrieve({language: x[layer] for language, x in vectors.items()}, sentences, distributed.device)
            for result in found:
                name = f"retrieval/{result.direction}_layer{layer}_{result.scoring}"
                metrics |= {f"{name}_top1": result.top1, f"{name}_mrr": result.mrr}
            top1 = {result.direction: result.top1 for result in found if result.scoring == "cosine"}
            if not best or sum(top1.values()) > sum(best.values()):
                best = top1
        return metrics | {f"valid/{direction}_retrieval_acc": best[direction] for direction in _directions(pair)}

    def _word_translation(self, model: LanguageModel, distributed: Distributed) -> dict[str, float]:
        table = model.encoder.token_embeddings.weight
        found = translate_words(table, self._vocab, self._entries, self._languages, distributed.device)
        metrics = {"bli/cosine": found.cosine, "bli/random_cosine": found.random_cosine}
        for precision in found.precision:
            if precision.among == "vocabulary":
                name = f"bli/{precision.direction}_{precision.scoring}"
                metrics |= {f"{name}_p1": precision.p1, f"{name}_p5": precision.p5, f"{name}_p10": precision.p10}
        return metrics


def _directions(pair: str) -> tuple[str, str]:
    first, second = pair.split("-")
    return f"{first}-{second}", f"{second}-{first}"


class Validator:
    """Evaluates a model on the validation sets of its training mixture, by its translations, and across languages.

    ``measures``: there is something to evaluate on during training. Raises ConfigError if ``evaluate.metric`` is not
    among the metrics then.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        settings, max_positions = config.evaluate, config.model.max_positions
        objectives = combined_data(config).weights.keys()
        causal, masked = objectives == {"clm"}, not objectives.isdisjoint(("mlm", "tlm"))
        self.sets = validation_sets(config, dataset)
        self._cloze = []
        if settings.max_pairs and masked:
            self._cloze = parallel_cloze_sets(config, dataset, max_pairs=settings.max_pairs)
        self._crosslingual = CrossLingualEvaluation(settings, dataset, max_positions, causal)
        self._zero_shot = None
        if settings.zero_shot_probe.train:
            codes, languages = dataset.path / "codes", dataset.languages
            settings_of_text = (
                TextConfig() if isinstance(dataset.vocab, TokenizerVocab) else TextConfig(**dataset.header.text)
            )
            text = text_pipeline(settings_of_text, read_codes(codes) if codes.exists() else [], dataset.vocab)
            self._zero_shot = ZeroShotProbe(settings.zero_shot_probe, text, languages, max_positions, causal)
        self._bleu, self._round_trip = TranslationBleu(config, dataset), RoundTrip(config, dataset)
        self.measures = bool(self.sets or self._bleu.metrics or self._round_trip.metrics)
        self._samples, self._vocab = settings.sample_predictions, dataset.vocab
        names = {name for s in self.sets + self._cloze for name in (s.name, f"valid/{s.objective}")}
        metrics = [f"{name}_{kind}" for name in names for kind in ("ppl", "acc")] + self._crosslingual.metrics
        metrics += self._bleu.metrics + self._round_trip.metrics + (self._zero_shot.metrics if self._zero_shot else [])
        if self.measures and settings.metric not in metrics:
            raise ConfigError(f"evaluate.metric: {settings.metric!r} is none of {', '.join(sorted(metrics))}")

    def __call__(
        self, model: LanguageModel, precision: Precision, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """Return all metrics, the same on every rank.

        ``stop`` as in :func:`~xlmtrain.evaluate.perplexity.evaluate_perplexity`.
        """
        metrics = evaluate_perplexity(model, [*self.sets, *self._cloze], precision, distributed, stop)
        metrics |= self._bleu(model, precision, distributed, stop)
        metrics |= self._round_trip(model, precision, distributed, stop)
        metrics |= self._crosslingual(model, distributed, stop)
        return metrics | (self._zero_shot(model, distributed, stop) if self._zero_shot else {})

    def samples(self, model: LanguageModel, precision: Precision, distributed: Distributed) -> dict[str, str]:
        """Return, as Markdown, the first sequences of each set with the model's predictions, and translations."""
        device, count = distributed.device, self._samples
        return {
            f"{chosen.key}_{chosen.objective}": sample_predictions(model, chosen, self._vocab, count, precision, device)
            for chosen in self.sets
            if count > 0
        } | self._bleu.examples(model, precision, distributed, count)
