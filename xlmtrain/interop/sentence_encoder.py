"""Sentence encoders: a model for text in one language, cut after the layer whose vectors find translations best.

Letters: N sentences, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from xlmtrain.config.evaluate import Pooling
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.retrieval import retrieve, validation_pairs
from xlmtrain.evaluate.sentence_embeddings import embed
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.card import training_sections
from xlmtrain.interop.hf.export import comparison_sentences
from xlmtrain.interop.hf.model import with_language
from xlmtrain.interop.hf.parity import matching_ids
from xlmtrain.interop.languages import LANGUAGES
from xlmtrain.model.translation_model import encoder_part

MAX_PAIRS = 1000
"""Validation pairs that layers and poolings are compared on."""
BATCH = 16
"""Sentences in a batch of the comparisons."""


@dataclass(frozen=True)
class VectorChoice:
    """Layer and pooling of sentence vectors.

    ``top1``: bitext retrieval on ``pairs`` validation pairs, P@1 by cosine in %, the mean over directions;
    ``last_top1``: that of the last layer's mean. Both are 0 if there were no pairs.
    """

    layer: int
    pooling: Pooling
    pairs: int = 0
    top1: float = 0.0
    last_top1: float = 0.0

    def describe(self, layers: int) -> str:
        """Return the choice and its reason in two sentences. ``layers``: of the model."""
        states = "the mean of all states" if self.pooling is Pooling.mean else "the first state"
        chosen = f"A sentence's vector is {states} of layer {self.layer} of {layers}. "
        if not self.pairs:
            return chosen + "No validation pairs were at hand to choose a layer by."
        return chosen + (
            f"Of {self.pairs:,} validation pairs it finds {self.top1:.1f} % of the translations (P@1; the mean of the "
            f"last layer {self.last_top1:.1f} %); it was chosen on these pairs, so the figure is optimistic."
        )


def choose_vectors(bundle: PretrainedBundle, data: str | None) -> VectorChoice:
    """Return the layer and pooling with the best bitext retrieval, or the last layer's mean without validation pairs.

    ``data``: prepared data with the model's vocabulary; None takes the run's, if that still exists. Of equal layers
    the last is taken. Raises ConfigError for data of another vocabulary.
    """
    last = VectorChoice(bundle.config.layers, Pooling.mean)
    path = data or bundle.provenance.prepared_data
    if path is None:
        return last
    dataset = Dataset(path)
    if dataset.vocab.fingerprint != bundle.vocab.fingerprint:
        raise ConfigError(f"data={path}: has another vocabulary than the model; prepare it with the model's")
    model, layers = bundle.module(), range(bundle.config.layers + 1)
    scores: dict[tuple[int, Pooling], list[float]] = {}
    pairs = 0
    for pair in dataset.pairs("valid"):
        ids = validation_pairs(dataset, pair, bundle.config.max_positions, MAX_PAIRS)
        if not ids or not set(ids) <= set(bundle.languages):
            continue
        pairs += len(next(iter(ids.values())))
        texts = {lang: [bundle.vocab.decode(sentence) for sentence in rows] for lang, rows in ids.items()}
        vectors = {
            language: embed(model, sentences, bundle.languages.index(language), list(Pooling), layers, bundle.causal)
            for language, sentences in ids.items()
        }
        for number, pooling in enumerate(Pooling):
            for layer in layers[1:]:
                found = retrieve({language: x[number, layer] for language, x in vectors.items()}, texts)
                top1 = [result.top1 for result in found if result.scoring == "cosine"]
                scores.setdefault((layer, pooling), []).extend(top1)
    if not scores:
        return last
    means = {key: mean(values) for key, values in scores.items()}
    layer, pooling = max(means, key=lambda key: (means[key], key[0], key[1] is Pooling.mean))
    return VectorChoice(layer, pooling, pairs, means[layer, pooling], means[last.layer, last.pooling])


@dataclass(frozen=True)
class LanguageFolder:
    """A folder to write, and the ``model`` for text in one language, which is built in.

    ``title``: its name in the model card. ``languages``: those it serves, several if the model does not tell them
    apart; the first one is compared.
    """

    path: Path
    title: str
    languages: list[str]
    model: PretrainedBundle

    def card_fields(
        self, choice: VectorChoice, bundle: PretrainedBundle, count: int, difference: float
    ) -> dict[str, Any]:
        """Return fields of the model card; ``count``: sentences compared, ``difference``: the largest found."""
        return {
            "name": self.title,
            "languages": ", ".join(self.languages),
            "dim": bundle.config.dim,
            "step": bundle.provenance.step,
            "positions": bundle.config.max_positions,
            "choice": choice.describe(bundle.config.layers),
            "count": count,
            "difference": difference,
            "training": training_sections(bundle.provenance),
        }


def language_folders(bundle: PretrainedBundle, lang: str | None, directory: Path, name: str) -> list[LanguageFolder]:
    """Return the folders in ``directory``, called ``name``.

    It is the directory itself for the language ``lang``, or for a model that is the same for all languages; else a
    subfolder for each language. A decoder is left out. Raises ConfigError for an unknown ``lang``, and for a model that
    cannot read text.
    """
    if lang is not None and lang not in bundle.languages:
        raise ConfigError(f"lang={lang}: the model knows {', '.join(bundle.languages)}")
    if not bundle.reads_text:
        raise ConfigError("the model has no BPE codes, so it cannot read text; give codes=FILE")
    vectors = bundle.weights.get(LANGUAGES)
    models = {}
    for number, language in enumerate(bundle.languages):
        vector = torch.zeros(bundle.config.dim) if vectors is None else vectors[number]
        config, weights = with_language(bundle.config, encoder_part(bundle.weights), vector)
        models[language] = replace(bundle, config=config, weights=weights, languages=[language])
    if lang is not None:
        return [LanguageFolder(directory, name, [lang], models[lang])]
    if len(models) == 1 or not (bundle.codes or vectors is not None):
        return [LanguageFolder(directory, name, bundle.languages, models[bundle.languages[0]])]
    return [LanguageFolder(directory / lang, f"{name}/{lang}", [lang], model) for lang, model in models.items()]


def cut_after(bundle: PretrainedBundle, layer: int) -> PretrainedBundle:
    """Return the model without the layers after ``layer``, which is from 1 up."""
    blocks = "encoder.blocks."
    kept = {
        name: weight
        for name, weight in bundle.weights.items()
        if not name.startswith(blocks) or int(name.removeprefix(blocks).partition(".")[0]) < layer
    }
    return replace(bundle, config=replace(bundle.config, layers=layer), weights=kept)


def comparison_rows(bundle: PretrainedBundle, folder: LanguageFolder, sentences: str | None) -> list[list[int]]:
    """Return ids of sentences with delimiters, which the folder's tokenizer gives, too, and a row of full length.

    ``sentences``: as for :func:`~xlmtrain.interop.hf.export.export_hf_folder`. Raises DataError for other ids.
    """
    language, special = folder.languages[0], bundle.vocab.special
    texts = {language: comparison_sentences(bundle, language, sentences)}
    rows = matching_ids(folder.path, bundle, language, texts, add_special_tokens=True)
    ordinary = np.flatnonzero(~bundle.vocab.is_special)
    return [*rows, [special.bos, *np.resize(ordinary, bundle.config.max_positions - 2).tolist(), special.eos]]


def padded_batches(rows: Sequence[list[int]], pad: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return ids and attention mask, (N, T) int64, of a row alone, of two, and of the others in batches."""
    batches = []
    for start, end in [(0, 1), (1, 3), *((start, start + BATCH) for start in range(3, len(rows), BATCH))]:
        if batch := [torch.tensor(row) for row in rows[start:end]]:
            ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=pad)
            lengths = torch.tensor([len(row) for row in batch])
            batches.append((ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()))
    return batches


def check_vectors(
    compute: Callable[[torch.Tensor, torch.Tensor], np.ndarray],
    bundle: PretrainedBundle,
    folder: LanguageFolder,
    choice: VectorChoice,
    rows: Sequence[list[int]],
    tolerance: float,
) -> float:
    """Return the largest difference between exported vectors and those of :meth:`PretrainedModel.embed`.

    ``compute``: ids and attention mask (N, T) -> exported vectors (N, D). ``rows``: ids of sentences with delimiters.
    ``tolerance``: relative to the largest number if that is above 1. Raises DataError above it.
    """
    special, number = bundle.vocab.special, bundle.languages.index(folder.languages[0])
    layers = range(choice.layer, choice.layer + 1)
    ids = [np.array(row[1:]) for row in rows]
    expected = embed(bundle.module(), ids, number, [choice.pooling], layers, bundle.causal)[0, 0]
    found = np.concatenate([compute(*batch) for batch in padded_batches(rows, special.pad)])
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance * max(1.0, float(np.abs(expected).max())):
        raise DataError(f"{folder.title}: sentence vectors differ by {difference:.2g}; nothing was exported")
    return difference
