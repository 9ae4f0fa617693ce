"""Conversion of models from and to the original XLM's checkpoint files (``.pth``) and names of weights.

The original groups modules by kind (``attentions.3.q_lin``), this package by block, with queries, keys and values in
one matrix. Everything else is the same.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from xlmtrain.config.families import Family
from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import CheckpointError, ConfigError, damage_as
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.xlm.pth import dictionary_vocab, read_checkpoint_file
from xlmtrain.model.translation_model import DECODER_TABLE, ENCODER_TABLE, as_decoder, decoder_part
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.bpe import Code
from xlmtrain.text.vocab import EOS, MASK, PAD, UNK, XLM_IDS

log = logging.getLogger(__name__)
MAX_POSITIONS = 512
"""Size of the position table, a constant in the original's code."""
EMBEDDINGS = "embeddings.weight"
OUTPUT = "pred_layer.proj.weight"
BIAS = "pred_layer.proj.bias"
_TEXT = "xlmtrain_text"
LANGUAGES = "lang_embeddings.weight"
POSITIONS = "position_embeddings.weight"

_TOP = {
    EMBEDDINGS: "encoder.token_embeddings.weight",
    POSITIONS: "encoder.position_embeddings.weight",
    LANGUAGES: "encoder.language_embeddings.weight",
    "layer_norm_emb.weight": "encoder.embedding_norm.weight",
    "layer_norm_emb.bias": "encoder.embedding_norm.bias",
    BIAS: "head.bias",
}
_BLOCK = {
    "attentions.{}.out_lin": "attention.out",
    "layer_norm1.{}": "attention_norm",
    "ffns.{}.lin1": "ffn.inner",
    "ffns.{}.lin2": "ffn.outer",
    "layer_norm2.{}": "ffn_norm",
}
_DECODER_BLOCK = {
    "layer_norm15.{}": "cross_attention_norm",
    "encoder_attn.{}.q_lin": "cross_attention.query",
    "encoder_attn.{}.out_lin": "cross_attention.out",
}
_OF_DECODER = re.compile("layer_norm15|encoder_attn")
_OF_TRAINING: dict[tuple[str, str], tuple[str, type]] = {
    ("data", "sequence_length"): ("bptt", int),
    ("mask", "prob"): ("word_pred", float),
}
"""Settings of training -> their names and types in the original."""
_UNSUPPORTED = re.compile(r"memories|pred_layer\.proj\.(head|tail)")


def read_xlm_checkpoint(path: Path, codes: list[Code], text: TextConfig | None) -> PretrainedBundle:
    """Read a checkpoint of the original XLM: its encoder, and its decoder if there is one.

    ``codes`` (may be empty) are not in the file. ``text``: None for that which :func:`write_xlm_checkpoint` stored; the
    original stores none. Raises CheckpointError if it is damaged, unsafe, or of an architecture that is not supported.
    """
    content = read_checkpoint_file(path)
    name = "model" if isinstance(content.get("model"), dict) else "encoder"
    decoder = name == "encoder" and isinstance(content.get("decoder"), dict)
    of_decoder = _plain_weights(content, "decoder", path) if decoder else {}
    weights = _plain_weights(content, name, path)
    params = content.get("params")
    if not isinstance(params, dict):
        raise CheckpointError(f"{path}: has no params, which say what kind of model it is")
    with damage_as(CheckpointError, f"{path}: incomplete or damaged"):
        vocab = dictionary_vocab(content["dico_id2word"], content.get("dico_counts", {}))
        config = model_config({"use_lang_emb": LANGUAGES in weights, **params}, weights)
        languages = [str(params["id2lang"][i]) for i in range(len(params["id2lang"]))]
        weights = from_xlm_state_dict(weights, untied=not config.tie_embeddings)
        if decoder:
            weights |= as_decoder(from_xlm_state_dict(of_decoder, untied=not config.tie_embeddings))
            if weights[DECODER_TABLE].data_ptr() == weights[ENCODER_TABLE].data_ptr():  # one table in the file
                del weights[DECODER_TABLE]
        text = text or typed(TextConfig, params.get(_TEXT, {}))
        causal = bool(params.get("clm_steps")) and not params.get("mlm_steps")
        settings = _training_settings(params)
    step = content.get("n_total_iter")
    provenance = Provenance(str(path), step if type(step) is int and step >= 0 else 0, settings)
    return PretrainedBundle(config, languages, vocab, weights, text, codes, provenance, causal)


def _training_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what evaluation takes from the settings of training: the length of a window, and the share of masks."""
    found: dict[str, Any] = {}
    for (section, key), (name, kind) in _OF_TRAINING.items():
        if isinstance(params.get(name), (int, float)):
            found[section] = {key: kind(params[name])}
    return found


def _plain_weights(content: dict[str, Any], name: str, path: Path) -> dict[str, torch.Tensor]:
    """Return a module's weights in fp32, without the prefix that DistributedDataParallel adds."""
    if not isinstance(content.get(name), dict):
        raise CheckpointError(
            f"{path}: neither 'model' nor 'encoder' is in it; there are {', '.join(map(str, content))}"
        )
    weights = {str(key).removeprefix("module."): value for key, value in content[name].items()}
    for key, value in weights.items():
        if _UNSUPPORTED.match(key) or (name != "decoder" and _OF_DECODER.match(key)):
            raise CheckpointError(f"{path}: {key} is in it; decoders, memories and adaptive softmax cannot be read")
        if not _is_plain(value):
            raise CheckpointError(f"{path}: {key} is not a plain tensor of real numbers")
    if sum(value.nbytes for value in weights.values()) > 2 * path.stat().st_size:  # twice: tied embeddings
        raise CheckpointError(f"{path}: the tensors of {name} are larger than the file; many of them are the same")
    return {key: value.detach().float() for key, value in weights.items()}


def _is_plain(value: Any) -> bool:
    """Return True for a tensor of real numbers, all of which are in the file: it is not an expanded one."""
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def model_config(params: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> ModelConfig:
    """Return the shape of a model from the original's ``params``, whose names Hugging Face uses as well."""
    return ModelConfig(
        dim=int(params["emb_dim"]),
        layers=int(params["n_layers"]),
        heads=int(params["n_heads"]),
        max_positions=len(weights[POSITIONS]),
        dropout=float(params["dropout"]),
        attention_dropout=float(params["attention_dropout"]),
        activation=Activation.gelu if params["gelu_activation"] else Activation.relu,
        sinusoidal_positions=bool(params["sinusoidal_embeddings"]),
        language_embeddings=bool(params["use_lang_emb"]),
        tie_embeddings=bool(params["share_inout_emb"]),
    )


def write_xlm_checkpoint(bundle: PretrainedBundle, path: Path) -> None:
    """Write a checkpoint that the original XLM can load, of plain containers and tensors only. May raise OSError.

    Raises ConfigError for a model of another family.
    """
    if bundle.config.family is not Family.xlm:
        raise ConfigError(f"format=xlm: the model is a {bundle.config.family.value}; export it with format=hf or run")
    decoder = decoder_part(bundle.weights)
    if bundle.vocab.special != XLM_IDS:
        raise ConfigError("format=xlm: the original XLM has other special tokens; export it with format=hf or run")
    if bundle.config.max_positions != MAX_POSITIONS:
        message = "the model has %d positions; the original XLM reads models of %d only"
        log.warning(message, bundle.config.max_positions, MAX_POSITIONS)
    words = dict(enumerate(bundle.vocab.tokens))
    content = {
        "epoch": 0,
        "n_total_iter": bundle.provenance.step,
        "best_metrics": {},
        "best_stopping_criterion": None,
        "encoder" if decoder else "model": to_xlm_state_dict(bundle.weights),
        **({"decoder": to_xlm_state_dict(decoder)} if decoder else {}),
        "dico_id2word": words,
        "dico_word2id": {word: i for i, word in words.items()},
        "dico_counts": dict(zip(bundle.vocab.tokens, bundle.vocab.counts.tolist())),
        "params": _params(bundle, encoder_only=not decoder),
    }
    try:
        with path.open("wb") as stream:
            torch.save(content, stream)
    except RuntimeError as error:  # torch's error for a full disk
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _params(bundle: PretrainedBundle, encoder_only: bool) -> dict[str, Any]:
    """Return the settings as the original XLM stores them."""
    config, languages = bundle.config, dict(enumerate(bundle.languages))
    params: dict[str, Any] = {
        "encoder_only": encoder_only,
        "emb_dim": config.dim,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "gelu_activation": config.activation is Activation.gelu,
        "share_inout_emb": config.tie_embeddings,
        "sinusoidal_embeddings": config.sinusoidal_positions,
        "use_lang_emb": config.language_embeddings,
        "use_memory": False,
        "asm": False,
        "langs": bundle.languages,
        "lgs": "-".join(bundle.languages),
        "id2lang": languages,
        "lang2id": {language: i for i, language in languages.items()},
        "n_langs": len(languages),
        "n_words": len(bundle.vocab),
        **{f"{name}_index": id for name, id in {"bos": 0, "eos": EOS, "pad": PAD, "unk": UNK, "mask": MASK}.items()},
    }
    trained = bundle.provenance.settings
    for (section, key), (name, _) in _OF_TRAINING.items():
        if key in trained.get(section, {}):
            params[name] = trained[section][key]
    if bundle.causal:  # the original has no such flag: objectives are options of its command line
        params |= {"clm_steps": [(language, None) for language in bundle.languages], "mlm_steps": []}
    if bundle.text != TextConfig():  # the original has none either, and ignores them
        params[_TEXT] = asdict(bundle.text)
    return params


def from_xlm_state_dict(tensors: dict[str, torch.Tensor], untied: bool = False) -> dict[str, torch.Tensor]:
    """Convert the original's encoder to the state dict of a :class:`~xlmtrain.model.language_model.LanguageModel`.

    A decoder's weights get the names of an encoder's. Gradients can be converted too. Unless ``untied``, an output
    matrix that equals the embeddings is left out as tied.
    """
    result = {ours: tensors[theirs] for theirs, ours in _TOP.items() if theirs in tensors}
    output = tensors.get(OUTPUT)
    if output is not None and (untied or not torch.equal(output, tensors[EMBEDDINGS])):
        result["head.weight"] = output
    for ours, theirs in _block_names(tensors, r"attentions\.(\d+)\."):
        result[ours] = tensors[theirs[0]] if len(theirs) == 1 else torch.cat([tensors[name] for name in theirs])
    return result


def to_xlm_state_dict(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert a state dict to the original's encoder or decoder, which have a tied matrix under both names."""
    result = {theirs: tensors[ours] for theirs, ours in _TOP.items() if ours in tensors}
    result[OUTPUT] = tensors.get("head.weight", tensors["encoder.token_embeddings.weight"])
    for ours, theirs in _block_names(tensors, r"encoder\.blocks\.(\d+)\."):
        result.update(zip(theirs, tensors[ours].chunk(len(theirs))))
    return result


def _block_names(tensors: Collection[str], pattern: str) -> Iterator[tuple[str, list[str]]]:
    """Yield our name and the original's names of every weight of a block; ``pattern`` finds the layers' numbers."""
    layers = 1 + max(int(match[1]) for name in tensors if (match := re.match(pattern, name)))
    decoder = "layer_norm15.0.weight" in tensors or "encoder.blocks.0.cross_attention_norm.weight" in tensors
    joined = {"attention.qkv": [f"attentions.{{}}.{part}_lin" for part in "qkv"]}
    if decoder:
        joined["cross_attention.key_value"] = [f"encoder_attn.{{}}.{part}_lin" for part in "kv"]
    joined |= {ours: [theirs] for theirs, ours in (_BLOCK | _DECODER_BLOCK if decoder else _BLOCK).items()}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            for ours, theirs in joined.items():
                yield f"encoder.blocks.{layer}.{ours}.{kind}", [f"{name.format(layer)}.{kind}" for name in theirs]
