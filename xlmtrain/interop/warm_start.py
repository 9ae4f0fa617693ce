"""The first weights of a run: of another model, and of word vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from xlmtrain.config.schema import InitConfig, ModelConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.word_vectors import read_vectors
from xlmtrain.model.language_model import LanguageModel, check_state_dict

LANGUAGES = "encoder.language_embeddings.weight"
POSITIONS = "encoder.position_embeddings.weight"
# These can differ: they do not change what the weights mean.
_FREE = ("dropout", "attention_dropout")


@torch.no_grad()
def initialize_weights(init: InitConfig, config: ModelConfig, model: LanguageModel, dataset: Dataset) -> list[str]:
    """Replace the random first weights of ``model``; returns what was done, a line each.

    Raises ConfigError for a model of another shape, another vocabulary or without one of the data's languages, or for
    word vectors of another size.
    """
    done = []
    if init.pretrained is not None:
        saved = read_model(init.pretrained)
        weights = matching_weights(saved, config, dataset)
        check_state_dict(model, weights, f"init.pretrained={init.pretrained}")
        model.load_state_dict(weights)
        done.append(f"first weights: {saved.history.source}, step {saved.history.step:,}")
    for path in init.word_vectors:
        ids, vectors = read_vectors(Path(path), dataset.vocab, config.dim)
        table = model.encoder.token_embeddings.weight
        table[torch.from_numpy(ids)] = torch.from_numpy(vectors).to(table)
        done.append(f"first word vectors: {len(ids):,} of {len(dataset.vocab):,} vocabulary entries from {path}")
    return done


def matching_weights(saved: PretrainedBundle, config: ModelConfig, dataset: Dataset) -> dict[str, torch.Tensor]:
    """The weights with the language embeddings in the order of the data's languages.

    A model of one language has none: then its vector goes into the positions, to which it is added anyway. Raises
    ConfigError as :func:`initialize_weights`.
    """
    theirs, ours = asdict(saved.config), asdict(config)
    other = [f"model.{key}={_plain(theirs[key])}" for key in ours if key not in _FREE and ours[key] != theirs[key]]
    if other:
        raise ConfigError(f"{saved.history.source}: this model has another shape; train it with {' '.join(other)}")
    if saved.vocab.fingerprint != dataset.vocab.fingerprint:
        raise ConfigError(
            f"{saved.history.source}: its vocabulary is not that of the data in {dataset.path}; prepare the data with "
            "its codes and vocabulary, bpe.codes=... vocab.file=..."
        )
    missing = [language for language in dataset.languages if language not in saved.languages]
    if missing:
        raise ConfigError(
            f"{saved.history.source}: knows {', '.join(saved.languages)}, not {', '.join(missing)}; prepare the data "
            "of its languages only, or take a model that was trained on all of them"
        )
    weights = dict(saved.weights)
    if LANGUAGES in weights:
        marks = weights.pop(LANGUAGES)[[saved.languages.index(language) for language in dataset.languages]]
        if len(marks) > 1:
            weights[LANGUAGES] = marks
        else:
            weights[POSITIONS] = weights[POSITIONS] + marks
    return weights


def _plain(value: object) -> object:
    return getattr(value, "value", value)
