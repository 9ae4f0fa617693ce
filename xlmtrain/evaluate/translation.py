"""BLEU of the model's translations: against the other side of pairs, or, without pairs, of round trips.

All translations are found by greedy search. BLEU is that of the words which the vocabulary gives, enough to choose
checkpoints; ``xlmtrain translate reference=`` gives sacreBLEU of raw text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from html import escape, unescape

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
from xlmtrain.runtime.process import Interrupted

Sentences = Sequence[np.ndarray]
TRANSLATION = "_translation"
"""End of the names of :meth:`TranslationBleu.examples`."""
_COUNTS = 10  # of ngram_counts
_HEADER = ("source | translation | reference", "--- | --- | ---")


class TranslationBleu:
    """BLEU on the first ``evaluate.max_translations`` validation pairs, in each direction that is trained.

    Raises ConfigError if no direction is trained, or none has validation pairs.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        count, self._dataset = config.evaluate.max_translations, dataset
        self._batch_tokens = config.evaluate.batch_tokens
        trained = _trained_directions(config) if count else []
        if count and not trained:
            raise ConfigError(
                f"evaluate.max_translations: {count} pairs, but data.mt and data.bt train no direction; set it to "
                "0, and evaluate.metric to one that there is, like valid/dae_ppl"
            )
        self._pairs: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
        for direction in trained:
            languages = direction.split("-")
            pair = "-".join(sorted(languages))
            if dataset.has(f"valid.{pair}.{languages[0]}"):
                source, target = (dataset.corpus(f"valid.{pair}.{language}") for language in languages)
                lengths = source.lengths(), target.lengths()
                usable = _usable(np.minimum(*lengths), np.maximum(*lengths), config)[:count]
                self._pairs[direction] = source.sentences(usable), target.sentences(usable)
        if trained and not self._pairs:
            raise ConfigError(
                f"evaluate.max_translations: {dataset.path} has no validation pairs for {', '.join(trained)}"
            )

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that the best checkpoint can be chosen by."""
        return [f"valid/{direction}_mt_bleu" for direction in self._pairs] + ["valid/mt_bleu"] * bool(self._pairs)

    def __call__(
        self, model: LanguageModel, precision: Precision, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """Return ``valid/{direction}_mt_bleu`` and their mean.

        ``stop`` as in :func:`~xlmtrain.evaluate.perplexity.evaluate_perplexity`.
        """
        metrics: dict[str, float] = {}
        for direction, (sources, targets) in self._pairs.items():
            translate = _Greedy(model, self._dataset, direction, precision, self._batch_tokens)
            counts_of = partial(_translation_counts, translate, sources, targets)
            counts = _sum_over_batches(sources, counts_of, _COUNTS, distributed, stop)
            metrics[f"valid/{direction}_mt_bleu"] = bleu_of_counts(counts).value
        return metrics | _mean(metrics, "valid/mt_bleu")

    def examples(
        self, model: LanguageModel, precision: Precision, distributed: Distributed, count: int
    ) -> dict[str, str]:
        """Return direction + :data:`TRANSLATION` -> the first ``count`` translations as a table in Markdown."""
        found = {}
        for direction, (sources, targets) in self._pairs.items() if count else ():
            translate = _Greedy(model, self._dataset, direction, precision, self._batch_tokens)
            sides = sources[:count], translate(sources[:count]), targets[:count]
            rows = [" | ".join(map(_cell, row)) for row in zip(*map(translate.texts, sides))]
            found[direction + TRANSLATION] = "\n".join([*_HEADER, *rows])
        return found


class RoundTrip:
    """Round-trip BLEU on the first ``evaluate.round_trip`` validation sentences of each language. Needs no pairs.

    ``de-en`` translates German into English and back. It is measured where ``data.mt`` and ``data.bt`` train both
    directions. A model that copies its source brings everything back, so n-grams that are in the translation, too, do
    not match: names and punctuation neither, so a perfect translation has less than 100. Raises ConfigError if no pair
    has both directions, or a language has no validation text.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        count, self._dataset = config.evaluate.round_trip, dataset
        self._batch_tokens = config.evaluate.batch_tokens
        trained = _trained_directions(config) if count else []
        directions = [key for key in trained if _reversed(key) in trained]
        if count and not directions:
            raise ConfigError(
                f"evaluate.round_trip: {count} sentences cannot be translated there and back; data.mt and data.bt do "
                "not train both directions of a pair; evaluate.round_trip=0 measures none"
            )
        self._sentences: dict[str, list[np.ndarray]] = {}
        for direction in directions:
            language, pair = direction.split("-")[0], "-".join(sorted(direction.split("-")))
            names = [name for name in (f"valid.{language}", f"valid.{pair}.{language}") if dataset.has(name)]
            if not names:
                raise ConfigError(f"evaluate.round_trip: {dataset.path} has no validation text valid.{language}")
            corpus = dataset.corpus(names[0])
            lengths = corpus.lengths()
            self._sentences[direction] = corpus.sentences(_usable(lengths, lengths, config)[:count])

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that the best checkpoint can be chosen by."""
        names = [f"valid/{direction}_round_trip_bleu" for direction in self._sentences]
        return names + ["valid/round_trip_bleu"] * bool(names)

    def __call__(
        self, model: LanguageModel, precision: Precision, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """Return ``valid/{direction}_round_trip_bleu``, their mean, and ``valid/{direction}_copied_share``.

        The share is that of the translations' words that are in their source, too. ``stop`` as in
        :func:`~xlmtrain.evaluate.perplexity.evaluate_perplexity`.
        """
        bleu: dict[str, float] = {}
        copies: dict[str, float] = {}
        for direction, sentences in self._sentences.items():
            there = _Greedy(model, self._dataset, direction, precision, self._batch_tokens)
            back = _Greedy(model, self._dataset, _reversed(direction), precision, self._batch_tokens)
            counts_of = partial(_round_trip_counts, there, back, sentences)
            *counts, copied, words = _sum_over_batches(sentences, counts_of, _COUNTS + 2, distributed, stop)
            bleu[f"valid/{direction}_round_trip_bleu"] = bleu_of_counts(counts).value
            copies[f"valid/{direction}_copied_share"] = copied / max(words, 1.0)
        return bleu | _mean(bleu, "valid/round_trip_bleu") | copies


class _Greedy:
    """Translates sentences in one direction by greedy search. Ids end with EOS."""

    def __init__(
        self, model: LanguageModel, dataset: Dataset, direction: str, precision: Precision, batch_tokens: int
    ) -> None:
        self._model, self._vocab = model, dataset.vocab
        self._config, self._precision = TranslationConfig(beam=1, batch_tokens=batch_tokens), precision
        self._source, self._target = map(dataset.language_id, direction.split("-"))

    def __call__(self, sentences: Sentences) -> list[np.ndarray]:
        """Return the translation of each sentence."""
        return translate_sentences(self._model, sentences, self._source, self._target, self._config, self._precision)

    def texts(self, sentences: Sentences) -> list[str]:
        """Return sentences as words separated by blanks."""
        return [self._vocab.decode(ids[:-1].tolist()) for ids in sentences]


def translate_sentences(
    model: LanguageModel,
    sentences: Sentences,
    source: int,
    target: int,
    config: TranslationConfig,
    precision: Precision = Precision.fp32,
) -> list[np.ndarray]:
    """Return the translations of sentences, which end with EOS; ``source``, ``target``: ids of their languages."""
    assert isinstance(model, TranslationModel), "translation is trained"
    ids = (sentence.astype(np.int64) for sentence in sentences)
    return [found[0].ids for found in translate_ids(model, ids, source, target, config, precision)]


def _translation_counts(
    translate: _Greedy, sources: Sentences, targets: Sentences, chosen: Sequence[int]
) -> np.ndarray:
    """Return the counts for BLEU of the translations of the ``chosen`` sources, (10,)."""
    return ngram_counts(
        translate.texts(translate([sources[i] for i in chosen])), translate.texts([targets[i] for i in chosen])
    )


def _round_trip_counts(there: _Greedy, back: _Greedy, sentences: Sentences, chosen: Sequence[int]) -> np.ndarray:
    """Return the counts for BLEU, and how many words of the translations are copied, of how many, (12,)."""
    original = [sentences[i] for i in chosen]
    translations = there(original)
    texts = [there.texts(side) for side in (original, translations, back(translations))]
    copied = sum((Counter(line.split()) & Counter(other.split())).total() for line, other in zip(*texts[:2]))
    words = sum(len(translation.split()) for translation in texts[1])
    return np.append(ngram_counts(texts[2], texts[0], without=texts[1]), (copied, words))


def _trained_directions(config: Config) -> list[str]:
    weights = combined_data(config).weights
    return sorted({*weights.get("mt", {}), *weights.get("bt", {})})


def _reversed(direction: str) -> str:
    return "-".join(reversed(direction.split("-")))


def _usable(shortest: np.ndarray, longest: np.ndarray, config: Config) -> list[int]:
    """Return the indices of the sentences, or pairs, that are not empty, and fit the model's positions."""
    return np.flatnonzero((shortest > 0) & (longest + 2 <= config.model.max_positions)).tolist()


def _sum_over_batches(
    sentences: Sentences,
    counts_of: Callable[[Sequence[int]], np.ndarray],
    size: int,
    distributed: Distributed,
    stop: Callable[[], bool],
) -> list[float]:
    """Return the sums of ``counts_of(indices)``, (size,), over batches of all sentences, shared by the processes.

    Raises Interrupted on all of them if ``stop`` returns True on one.
    """

    def mine() -> list[float]:
        every = list(by_length([len(sentence) + 1 for sentence in sentences]))
        counts = np.zeros(size)
        for chosen in distributed.in_step(every[distributed.rank :: distributed.world_size], stop):
            failpoint("evaluate")
            counts += counts_of(chosen or [])
        return counts.tolist()

    *counts, stopped = distributed.all_reduce_sum([*distributed.run_on_all(mine), float(stop())])
    if stopped:
        raise Interrupted
    return counts


def _mean(metrics: dict[str, float], name: str) -> dict[str, float]:
    return {name: sum(metrics.values()) / len(metrics)} if metrics else {}


def _cell(text: str) -> str:
    return escape(" ".join(text.split()), quote=False).replace("|", "&#124;")


def read_examples(text: str) -> list[tuple[str, ...]]:
    """Return (source, translation, reference) of the rows of a table of :meth:`TranslationBleu.examples`."""
    return [tuple(map(unescape, line.split(" | "))) for line in text.splitlines()[len(_HEADER) :]]
