"""Round-trip BLEU: sentences are translated and translated back, and compared with the originals. No pairs needed.

A model that copies its source would have 100, so the share of copied words is measured, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from xlmtrain.config.phases import combined_data
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.bleu import bleu_of_counts, ngram_counts
from xlmtrain.evaluate.sentence_embeddings import by_length
from xlmtrain.generate.translate import translate_ids
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.precision import autocast
from xlmtrain.runtime.process import Interrupted


class RoundTrip:
    """Round-trip BLEU on the first ``evaluate.round_trip`` validation sentences of each language, by greedy search.

    ``de-en`` translates German into English and back. It is measured where ``data.mt`` and ``data.bt`` train both
    directions. Raises ConfigError if no pair has both, or a language has no validation text.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        count, weights = config.evaluate.round_trip, combined_data(config).weights
        trained = [*weights.get("mt", {}), *weights.get("bt", {})] if count else []
        self._directions = sorted(key for key in set(trained) if "-".join(reversed(key.split("-"))) in trained)
        if count and not self._directions:
            raise ConfigError(
                f"evaluate.round_trip: {count} sentences cannot be translated there and back; data.mt and data.bt do "
                "not train both directions of a pair"
            )
        self._ids, self._vocab, self._sentences = dataset.language_id, dataset.vocab, {}
        for direction in self._directions:
            language, pair = direction.split("-")[0], "-".join(sorted(direction.split("-")))
            names = [name for name in (f"valid.{language}", f"valid.{pair}.{language}") if dataset.has(name)]
            if not names:
                raise ConfigError(f"evaluate.round_trip: {dataset.path} has no validation text valid.{language}")
            corpus = dataset.corpus(names[0])
            lengths = corpus.lengths()
            usable = np.flatnonzero((lengths > 0) & (lengths + 2 <= config.model.max_positions))[:count]
            self._sentences[direction] = corpus.sentences(usable.tolist())

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that the best checkpoint can be chosen by."""
        names = [f"valid/{direction}_round_trip_bleu" for direction in self._directions]
        return names + ["valid/round_trip_bleu"] * bool(names)

    def __call__(
        self, model: LanguageModel, precision: Precision, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """Return ``valid/{direction}_round_trip_bleu``, their mean, and ``valid/{direction}_copied_share``.

        The share is that of the translations' words that are in their source, too. ``stop`` as in
        :func:`~xlmtrain.evaluate.perplexity.evaluate_perplexity`.
        """
        metrics: dict[str, float] = {}
        for direction in self._directions:
            mine = distributed.run_on_all(partial(self._counts, direction, model, precision, distributed, stop))
            *counts, copied, words, stopped = distributed.all_reduce_sum([*mine, float(stop())])
            if stopped:
                raise Interrupted
            metrics[f"valid/{direction}_round_trip_bleu"] = bleu_of_counts(counts).value
            metrics[f"valid/{direction}_copied_share"] = copied / max(words, 1.0)
        if values := [metrics[f"valid/{direction}_round_trip_bleu"] for direction in self._directions]:
            metrics["valid/round_trip_bleu"] = sum(values) / len(values)
        return metrics

    def _counts(
        self,
        direction: str,
        model: LanguageModel,
        precision: Precision,
        distributed: Distributed,
        stop: Callable[[], bool],
    ) -> list[float]:
        """Return this process's counts for BLEU, and how many words of its translations are copied, of how many."""
        assert isinstance(model, TranslationModel), "translation is trained"
        sentences, config = self._sentences[direction], TranslationConfig(beam=1)
        source, target = map(self._ids, direction.split("-"))
        counts, copied, words = np.zeros(10), 0, 0
        every = list(by_length([len(sentence) + 1 for sentence in sentences]))
        for chosen in distributed.in_step(every[distributed.rank :: distributed.world_size], stop):
            failpoint("evaluate")
            original = [sentences[i].astype(np.int64) for i in chosen or []]
            with autocast(precision, distributed.device):
                there = [found[0].ids for found in translate_ids(model, original, source, target, config)]
                back = [found[0].ids for found in translate_ids(model, there, target, source, config)]
            texts = [[self._vocab.decode(ids[:-1].tolist()) for ids in side] for side in (original, there, back)]
            counts += ngram_counts(texts[2], texts[0])
            for line, translation in zip(*texts[:2]):
                copied += (Counter(line.split()) & Counter(translation.split())).total()
                words += len(translation.split())
        return [*counts.tolist(), float(copied), float(words)]
