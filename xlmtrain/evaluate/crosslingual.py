"""Cross-lingual transfer as measured during training: bitext retrieval and bilingual lexicon induction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xlmtrain.config.schema import EvaluateConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.evaluate.retrieval import retrieve
from xlmtrain.evaluate.sentence_embeddings import embed_distributed
from xlmtrain.evaluate.word_translation import lexicon_languages, read_lexicon, translate_words
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed

MOST_TOKENS = 256
"""Sentences with more tokens, or more than the model has positions, are left out: they would dominate the cost."""


class CrossLingualEvaluation:
    """Retrieval among the validation pairs and translation of a lexicon, as configured in ``evaluate``.

    ``causal``: the model is trained by CLM only. Raises DataError for a lexicon that cannot be read, or has fewer than
    two entries in the vocabulary.
    """

    def __init__(self, config: EvaluateConfig, dataset: Dataset, positions: int, causal: bool) -> None:
        self._vocab, self._causal = dataset.vocab, causal
        self._entries: list[tuple[str, str]] = []
        if config.bilingual_lexicon:
            path = Path(config.bilingual_lexicon)
            self._entries, self._languages = read_lexicon(path), lexicon_languages(path, dataset.languages)
        self._texts: dict[str, dict[str, tuple[int, list[np.ndarray]]]] = {}  # pair -> language -> (id, sentences)
        for pair in dataset.pairs("valid") if config.parallel_pairs else []:
            sides = dict(zip(pair.split("-"), dataset.pair("valid", pair)))
            lengths = np.stack([side.lengths() for side in sides.values()])
            fits = lengths.max(axis=0) + 2 <= min(positions, MOST_TOKENS)
            usable = np.flatnonzero(fits & (lengths.min(axis=0) > 0))[: config.parallel_pairs]
            if len(usable):
                self._texts[pair] = {
                    language: (dataset.language_id(language), [side.sentence(i).astype(np.int64) for i in usable])
                    for language, side in sides.items()
                }

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
        sentences = {lang: [self._vocab.decode(ids) for ids in some] for lang, (_, some) in self._texts[pair].items()}
        metrics: dict[str, float] = {}
        layers, directions = range(len(model.encoder.blocks) + 1), _directions(pair)
        for layer in layers:
            of_layer = {language: x[layer] for language, x in vectors.items()}
            for one in retrieve(of_layer, sentences, distributed.device):
                name = f"retrieval/{one.direction}_layer{layer}_{one.scoring}"
                metrics |= {f"{name}_top1": one.top1, f"{name}_mrr": one.mrr}
        top1 = [{d: metrics[f"retrieval/{d}_layer{layer}_cosine_top1"] for d in directions} for layer in layers]
        best = max(top1, key=lambda of_layer: sum(of_layer.values()))
        return metrics | {f"valid/{direction}_retrieval_acc": value for direction, value in best.items()}

    def _word_translation(self, model: LanguageModel, distributed: Distributed) -> dict[str, float]:
        table = model.encoder.token_embeddings.weight
        found = translate_words(table, self._vocab, self._entries, self._languages, distributed.device)
        metrics = {"bli/cosine": found.cosine, "bli/random_cosine": found.random_cosine}
        for one in found.precision:
            if one.among == "vocabulary":
                name = f"bli/{one.direction}_{one.scoring}"
                metrics |= {f"{name}_p1": one.p1, f"{name}_p5": one.p5, f"{name}_p10": one.p10}
        return metrics


def _directions(pair: str) -> tuple[str, str]:
    first, second = pair.split("-")
    return f"{first}-{second}", f"{second}-{first}"
