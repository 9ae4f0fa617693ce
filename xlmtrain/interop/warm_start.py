"""Initial weights of a run from a pretrained model, and of its token embeddings from word vectors."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from xlmtrain.config.model import InitConfig, ModelConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf.folder_text import NumberedVocab
from xlmtrain.interop.languages import LANGUAGES, language_table
from xlmtrain.interop.word_vectors import read_vectors
from xlmtrain.model.language_model import LanguageModel, check_state_dict
from xlmtrain.model.translation_model import (
    DECODER_TABLE,
    TranslationModel,
    as_decoder,
    decoder_part,
    encoder_part,
    initialize_from,
)
from xlmtrain.text.tokenizer_extension import pieces_of_new_entries
from xlmtrain.text.tokenizer_json import TokenizerVocab

log = logging.getLogger(__name__)
_BY_ENTRY = "encoder.token_embeddings.weight", "head.weight", "head.bias"
"""Weights with a row for each entry of the vocabulary."""


@torch.no_grad()
def initialize_weights(init: InitConfig, config: ModelConfig, model: LanguageModel, dataset: Dataset) -> list[str]:
    """Replace the random initial weights of ``model`` in place; return a line for the log per source.

    Raises ConfigError for a pretrained model of another shape, of another vocabulary or without one of the data's
    languages, for one that lacks a decoder or has one too many, and for word vectors of another size.
    """
    done: list[str] = []
    if isinstance(model, TranslationModel):
        done += _initialize_both(init, config, model, dataset)
    elif init.encoder is not None or init.decoder is not None:
        raise ConfigError(
            "init.encoder, init.decoder: this run has no decoder; give data.mt, data.dae or data.bt a weight, "
            "or init.pretrained in their place"
        )
    elif init.pretrained is not None:
        bundle = read_model(init.pretrained)
        weights = matching_weights(bundle, config, dataset)
        check_state_dict(model, weights, f"init.pretrained={init.pretrained}")
        model.load_state_dict(weights)
        done.append(f"first weights: {_origin(bundle)}")
    for path in init.word_vectors:
        ids, vectors = read_vectors(Path(path), dataset.vocab, config.dim)
        tables = {model.encoder.token_embeddings}
        if isinstance(model, TranslationModel):
            tables.add(model.target_embeddings)
        for table in tables:
            table.weight[torch.from_numpy(ids)] = torch.from_numpy(vectors).to(table.weight)
        done.append(f"first word vectors: {len(ids):,} of {len(dataset.vocab):,} vocabulary entries from {path}")
    return done


def _initialize_both(init: InitConfig, config: ModelConfig, model: TranslationModel, dataset: Dataset) -> Iterator[str]:
    """Replace the weights of encoder and decoder; yield a line for the log on each, and on what stays random."""
    parts: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "decoder": {}}
    for side, path in {"encoder": init.encoder or init.pretrained, "decoder": init.decoder or init.pretrained}.items():
        if path is None:
            continue
        bundle = read_model(path)
        decoder = decoder_part(bundle.weights)
        if init.pretrained is not None and not decoder:
            raise ConfigError(
                f"init.pretrained={path}: is a language model, without a decoder; "
                f"give init.encoder={path} init.decoder={path}, or one of the two"
            )
        part = decoder if side == "decoder" and decoder else encoder_part(bundle.weights)
        parts[side] = matching_weights(replace(bundle, weights=part), config, dataset)
        tied = side == "decoder" and model.share_embeddings and parts["encoder"]
        yield f"first weights of the {side}: {_origin(bundle)}" + (
            ", without its token table, which is tied" if tied else ""
        )
    left = initialize_from(model, parts["encoder"], parts["decoder"])
    if init.models and left:
        names = dict.fromkeys(re.sub(r"\.blocks\.\d+\.", ".blocks.*.", name) for name in left)
        yield f"random first weights: {', '.join(names)}"


def _origin(bundle: PretrainedBundle) -> str:
    return f"{bundle.provenance.source}, step {bundle.provenance.step:,}"


def matching_bundle(bundle: PretrainedBundle, dataset: Dataset) -> PretrainedBundle:
    """Return the model, its decoder included, with vocabulary and languages of the data.

    Raises ConfigError as :func:`matching_weights`.
    """
    weights = matching_weights(bundle, bundle.config, dataset)
    if decoder := decoder_part(bundle.weights):
        weights |= as_decoder(matching_weights(replace(bundle, weights=decoder), bundle.config, dataset))
        if DECODER_TABLE not in bundle.weights:  # it is the encoder's
            del weights[DECODER_TABLE]
    return replace(bundle, weights=weights, vocab=dataset.vocab, languages=dataset.languages)


def matching_weights(bundle: PretrainedBundle, config: ModelConfig, dataset: Dataset) -> dict[str, torch.Tensor]:
    """Return a language model's weights, without a decoder's, with languages in the order of the data's.

    A model of one language has no language embedding: its vector is added to the position or token type embeddings,
    which gives the same sum. A family other than XLM may get language embeddings, which begin at zero. Raises
    ConfigError as :func:`initialize_weights` does.
    """
    source, added = bundle.provenance.source, config.parts.added_languages
    free = {"dropout", "attention_dropout", "share_encoder_decoder_embeddings"}
    ours, theirs = asdict(config), asdict(bundle.config)
    if added and not bundle.config.language_embeddings:
        free.add("language_embeddings")
    if config.ffn_width == bundle.config.ffn_width:
        free.add("ffn_dim")
    other = {key: theirs[key] for key, value in ours.items() if theirs[key] != value and key not in free}
    if other:
        # getattr: an enum's member is given by its value
        advice = " ".join(f"model.{key}={getattr(value, 'value', value)}" for key, value in other.items())
        raise ConfigError(f"{source}: this model has another shape; train it with {advice}")
    weights = encoder_part(bundle.weights)
    if isinstance(bundle.vocab, NumberedVocab):  # a folder without a tokenizer
        size, pad = len(bundle.vocab), bundle.vocab.special.pad
        if (size, pad) != (len(dataset.vocab), dataset.vocab.special.pad):
            raise ConfigError(
                f"{source}: has {size:,} entries, padding {pad}; the data in {dataset.path} has "
                f"{len(dataset.vocab):,}, padding {dataset.vocab.special.pad}; prepare it with the model's tokenizer"
            )
        log.warning("%s: has no tokenizer; its ids are taken to be those of the data in %s", source, dataset.path)
    elif (pieces := _new_entries(bundle, dataset)) is not None:
        extended = {name: _with_means(weights[name], pieces) for name in _BY_ENTRY if name in weights}
        log.info("%s: %s new entries begin at the mean of their pieces", source, f"{len(pieces):,}")
        weights |= extended
    elif bundle.vocab.fingerprint != dataset.vocab.fingerprint:
        own = "tokenizer, tokenizer=..." if isinstance(bundle.vocab, TokenizerVocab) else ""
        raise ConfigError(
            f"{source}: its vocabulary is not that of the data in {dataset.path}; prepare the data with "
            f"its {own or 'codes and vocabulary, bpe.codes=... vocab.file=...'}"
        )
    if config.parts.added_languages and LANGUAGES not in weights:
        if config.language_embeddings and len(dataset.languages) > 1:
            weights[LANGUAGES] = torch.zeros(len(dataset.languages), config.dim)
        return weights
    if missing := [language for language in dataset.languages if language not in bundle.languages]:
        raise ConfigError(
            f"{source}: knows {', '.join(bundle.languages)}, not {', '.join(missing)}; prepare the data "
            "of its languages only, or take a model that was trained on all of them"
        )
    if LANGUAGES in weights:
        vectors = weights[LANGUAGES][[bundle.languages.index(language) for language in dataset.languages]]
        if len(vectors) > 1:
            return {**weights, LANGUAGES: vectors}
        if (table := language_table(weights)) is None:
            raise ConfigError(f"{source}: has language embeddings, which a model of one language cannot take over")
        del weights[LANGUAGES]
        weights[table] = weights[table] + vectors
    return weights


def _new_entries(bundle: PretrainedBundle, dataset: Dataset) -> list[list[int]] | None:
    """Return the pieces of the entries that the data's tokenizer has beyond the model's; None if it is no such one."""
    both = bundle.vocab, dataset.vocab
    if isinstance(both[0], TokenizerVocab) and isinstance(both[1], TokenizerVocab):
        return pieces_of_new_entries(both[0], both[1])
    return None


def _with_means(weight: torch.Tensor, pieces: list[list[int]]) -> torch.Tensor:
    """Return ``weight`` with a row for each new entry, the mean of its pieces' rows."""
    return torch.cat([weight, *(weight[ids].mean(dim=0, keepdim=True) for ids in pieces)])
