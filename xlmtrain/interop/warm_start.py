"""Initial weights of a run from a pretrained model, and of its token embeddings from word vectors."""

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
from xlmtrain.model.translation_model import encoder_part

LANGUAGES = "encoder.language_embeddings.weight"
POSITIONS = "encoder.position_embeddings.weight"


@torch.no_grad()
def initialize_weights(init: InitConfig, config: ModelConfig, model: LanguageModel, dataset: Dataset) -> list[str]:
    """Replace the random initial weights of ``model`` in place; return a line for the log per source.

    Raises ConfigError for a pretrained model of another shape, of another vocabulary or without one of the data's
    languages, and for word vectors of another size.
    """
    done = []
    if init.pretrained is not None:
        bundle = read_model(init.pretrained)
        weights = matching_weights(bundle, config, dataset)
        check_state_dict(model, weights, f"init.pretrained={init.pretrained}")
        model.load_state_dict(weights)
        done.append(f"first weights: {bundle.provenance.source}, step {bundle.provenance.step:,}")
    for path in init.word_vectors:
        ids, vectors = read_vectors(Path(path), dataset.vocab, config.dim)
        table = model.encoder.token_embeddings.weight
        table[torch.from_numpy(ids)] = torch.from_numpy(vectors).to(table)
        done.append(f"first word vectors: {len(ids):,} of {len(dataset.vocab):,} vocabulary entries from {path}")
    return done


def matching_weights(bundle: PretrainedBundle, config: ModelConfig, dataset: Dataset) -> dict[str, torch.Tensor]:
    """Return the weights, without a decoder's, with the language embeddings in the order of the data's languages.

    A model of one language has no language embedding: its vector is added to the position embeddings instead, which
    gives the same sum. Raises ConfigError as :func:`initialize_weights` does.
    """
    source, theirs = bundle.provenance.source, asdict(bundle.config)
    other = {key: theirs[key] for key, value in asdict(config).items() if theirs[key] != value and "dropout" not in key}
    if other:
        # getattr: an enum's member is given by its value
        advice = " ".join(f"model.{key}={getattr(value, 'value', value)}" for key, value in other.items())
        raise ConfigError(f"{source}: this model has another shape; train it with {advice}")
    if bundle.vocab.fingerprint != dataset.vocab.fingerprint:
        raise ConfigError(
            f"{source}: its vocabulary is not that of the data in {dataset.path}; prepare the data with "
            "its codes and vocabulary, bpe.codes=... vocab.file=..."
        )
    if missing := [language for language in dataset.languages if language not in bundle.languages]:
        raise ConfigError(
            f"{source}: knows {', '.join(bundle.languages)}, not {', '.join(missing)}; prepare the data "
            "of its languages only, or take a model that was trained on all of them"
        )
    weights = encoder_part(bundle.weights)
    if LANGUAGES in weights:
        vectors = weights.pop(LANGUAGES)[[bundle.languages.index(language) for language in dataset.languages]]
        if len(vectors) > 1:
            weights[LANGUAGES] = vectors
        else:
            weights[POSITIONS] = weights[POSITIONS] + vectors
    return weights
