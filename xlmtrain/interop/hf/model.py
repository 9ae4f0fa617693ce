"""Hugging Face folders: read, and written so that transformers loads them with its own classes.

XLM's language embeddings are added only if the caller passes ``langs``. For callers that do not (``pipeline``, most
scripts) there is a subfolder per language, in which that language's embedding is added to every position embedding.
Both give the same logits.

config.json model.safetensors               vocab.json merges.txt tokenizer.json tokenizer_config.json
README.md                                   the model card (written by :mod:`xlmtrain.interop.hf.export`)
fill_mask.py                                a pipeline that passes the language and takes words as targets
xlmtrain.json                               text settings, counts, provenance, a fingerprint of what determines ids
de/ en/                                     one language each, with files of the same names
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from xlmtrain.config.families import Family
from xlmtrain.config.model import ModelConfig
from xlmtrain.errors import CheckpointError, damage_as
from xlmtrain.interop.bundle import FinetunedBundle, ModelBundle, PretrainedBundle, Provenance, trained_causally
from xlmtrain.interop.hf.class_names import HeadKind, head_kind
from xlmtrain.interop.hf.class_weights import (
    from_family_weights,
    from_xlm_weights,
    read_weights,
    ties_output,
    without_prefix,
    write_weights,
)
from xlmtrain.interop.hf.classifier_config import classifier_fields, head_of
from xlmtrain.interop.hf.config_json import check_special_ids, config_json, read_xlm_config
from xlmtrain.interop.hf.families import MODEL_TYPES, read_family
from xlmtrain.interop.hf.folder_text import BIAS, EXTRA, NEVER, TABLE, read_text, write_text
from xlmtrain.interop.hf.tokenizer import TLM_PAIR, out_of_vocab_merges, tokenizer_json
from xlmtrain.interop.languages import LANGUAGES, language_table
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.text.tokenizer_json import TokenizerVocab
from xlmtrain.text.vocab import XLM_IDS

ANY_LANGUAGE = "mul"
"""Language of a model that does not tell languages apart; ISO 639's code for several."""
OUTPUT = "head.weight"


def write_hf_folder(bundle: ModelBundle[Any], directory: Path) -> None:
    """Write everything but the model card into ``directory``.

    A family other than XLM has no language embeddings in transformers: a model with them is in the subfolders only.
    Raises ConfigError for a fine-tuned model that transformers' class cannot hold.
    """
    pair = bundle.pair if isinstance(bundle, FinetunedBundle) else TLM_PAIR
    if isinstance(bundle, FinetunedBundle) and isinstance(bundle.vocab, TokenizerVocab):
        bundle = replace(bundle, vocab=bundle.vocab.with_pair_layout(*pair))
    weights, config, xlm = dict(bundle.weights), bundle.config, bundle.config.family is Family.xlm
    # Symbols that the merges use and the vocabulary lacks: embedded as UNK and never predicted.
    unlisted = len(out_of_vocab_merges(bundle.vocab, bundle.codes)) if bundle.codes else 0
    unknown = weights[TABLE][bundle.vocab.special.unk].expand(unlisted, -1)
    rows = {TABLE: unknown, OUTPUT: torch.zeros_like(unknown), BIAS: torch.full((unlisted,), NEVER)}
    weights |= {name: torch.cat([weights[name], more]) for name, more in rows.items() if name in weights}
    tokenizers = {
        language: tokenizer_json(bundle.vocab, bundle.codes, language, bundle.text, pair) if bundle.codes else ""
        for language in bundle.languages
    }
    vectors = weights.get(LANGUAGES)
    if xlm or vectors is None:
        _write_model(directory, bundle, weights, tokenizers[bundle.languages[0]])
    if len(bundle.languages) > 1 and (xlm or bundle.codes or vectors is not None):
        for number, (language, tokenizer) in enumerate(tokenizers.items()):
            vector = torch.zeros(config.dim) if vectors is None else vectors[number]
            shape, merged = with_language(config, weights, vector)
            _write_model(directory / language, replace(bundle, config=shape, languages=[language]), merged, tokenizer)
    if xlm and bundle.reads_text and not bundle.causal and isinstance(bundle, PretrainedBundle):
        shutil.copyfile(Path(__file__).with_name("fill_mask.py"), directory / "fill_mask.py")


def with_language(
    config: ModelConfig, weights: Mapping[str, torch.Tensor], vector: torch.Tensor
) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Return the model with the embedding ``vector`` (D,) of one language in place of language embeddings.

    It is added to every position embedding; without these to every token type; without these to every token embedding,
    which unties the output layer.
    """
    merged = {name: weight for name, weight in weights.items() if name != LANGUAGES}
    config = replace(config, language_embeddings=False, sinusoidal_positions=False)
    if (table := language_table(merged)) is not None:
        return config, {**merged, table: merged[table] + vector}
    if not vector.any():
        return config, merged
    output = {OUTPUT: merged.get(OUTPUT, merged[TABLE])} if BIAS in merged else {}
    untied = {TABLE: merged[TABLE] + vector, **output}
    return replace(config, tie_embeddings=False), {**merged, **untied}


def _write_model(folder: Path, bundle: ModelBundle[Any], weights: dict[str, torch.Tensor], tokenizer: str) -> None:
    """Write a folder that transformers loads with the class that ``config.json`` names.

    ``tokenizer``: content of ``tokenizer.json``; empty for a model without BPE codes.
    """
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", config_json(bundle, len(weights[TABLE])))
    write_weights(folder / "model.safetensors", weights, bundle.config, head_of(bundle))
    write_text(folder, bundle, tokenizer)


def read_hf_folder(path: Path) -> PretrainedBundle | FinetunedBundle:
    """Read a folder written by :func:`write_hf_folder` or by transformers, of a language model or a fine-tuned one.

    Raises CheckpointError if it is of another architecture, has no output layer, or a file is missing or damaged. A
    family other than XLM may lack its prediction head, and the text processing: then its vocabulary has numbers only.
    """
    with damage_as(CheckpointError, f"{path}: incomplete or damaged"):
        settings = read_json(path / "config.json")
        extra = read_json(path / EXTRA) if (path / EXTRA).is_file() else {}
        xlm = settings["model_type"] == "xlm"
        if not xlm and settings["model_type"] not in MODEL_TYPES:
            raise ValueError(
                f"config.json: model_type is {settings['model_type']!r}; there are xlm, {', '.join(MODEL_TYPES)}"
            )
        head, weights = head_kind(settings.get("architectures")), read_weights(path)
        if xlm:
            weights = without_prefix(weights, head)
            config, special = read_xlm_config(settings, weights), XLM_IDS
            ours = from_xlm_weights(weights, config, head)
        else:
            config, special = read_family(settings, ties_output(weights, MODEL_TYPES[settings["model_type"]]))
            ours = from_family_weights(weights, config, head, path)
        languages = sorted(found, key=found.__getitem__) if (found := settings.get("lang2id")) else [ANY_LANGUAGE]
        vocab, codes, text = read_text(path, extra, ours, languages, special if not xlm else None)
        ours |= {name: ours[name][: len(vocab)] for name in (TABLE, OUTPUT, BIAS) if name in ours}
        if xlm:
            check_special_ids(settings, vocab.special)
        elif config.parts.after_pad and vocab.special.pad != special.pad:
            raise ValueError(f"config.json: pad_token_id is {special.pad}, but the tokenizer's is {vocab.special.pad}")
        origin = extra.get("provenance", extra.get("history", {}))  # "history" in version 0.1.0
        provenance = Provenance.from_json(origin, str(path))
        if head is not HeadKind.masked:
            fields = classifier_fields(path, settings, extra, head, config)
            return FinetunedBundle(config, languages, vocab, ours, text, codes, provenance, **fields)
        # Version 0.1.0 wrote causal=false for every model.
        causal = settings.get("causal") is True or trained_causally(provenance.settings)
        return PretrainedBundle(config, languages, vocab, ours, text, codes, provenance, causal)
