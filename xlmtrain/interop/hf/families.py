"""Settings and weights of BERT, RoBERTa, XLM-R and ModernBERT as transformers names them, read and written.

A prediction head that is missing, as in a file of the encoder alone, is made with random weights.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlmtrain.config.families import Family
from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.model.head import Head
from xlmtrain.text.vocab import SpecialIds, Vocab

log = logging.getLogger(__name__)
_TABLE = "encoder.token_embeddings.weight"
_WITHOUT_EFFECT = re.compile(
    r"^(\w+\.)?pooler\.|^cls\.seq_relationship\.|\.?(position_ids|token_type_ids|inv_freq|attn\.rotary_emb\.\w+)$"
)
"""Weights that a masked language model does not use: of sentence classification, and constants."""
_LOCAL = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class HfClass:
    """A class of transformers.

    ``modules``, ``block``: our module names, of the whole model and of a block, and theirs; queries, keys and values
    may be three modules. ``bias``: name of the output layer's bias while its matrix is tied. ``defaults``: values that
    ``config.json`` may lack.
    """

    architecture: str
    modules: Mapping[str, str]
    block: Mapping[str, tuple[str, ...]]
    bias: str
    defaults: Mapping[str, Any]

    @property
    def prefix(self) -> str:
        """Beginning of the names of the encoder's weights."""
        return self.modules["encoder.token_embeddings"].partition(".")[0] + "."


_BERT_DEFAULTS = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "intermediate_size": 3072,
    "pad_token_id": 0,
}
_ROBERTA_DEFAULTS = {**_BERT_DEFAULTS, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


def _bert(architecture: str, name: str, head: dict[str, str], bias: str, defaults: dict[str, Any]) -> HfClass:
    """Return a class with the encoder of BERT, named ``name``; the names of the ``head`` are its own."""
    layer, ours = f"{name}.encoder.layer.{{}}", "encoder."
    return HfClass(
        architecture,
        {
            f"{ours}token_embeddings": f"{name}.embeddings.word_embeddings",
            f"{ours}position_embeddings": f"{name}.embeddings.position_embeddings",
            f"{ours}token_type_embeddings": f"{name}.embeddings.token_type_embeddings",
            f"{ours}embedding_norm": f"{name}.embeddings.LayerNorm",
            **head,
        },
        {
            "attention.qkv": tuple(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")),
            "attention.out": (f"{layer}.attention.output.dense",),
            "attention_norm": (f"{layer}.attention.output.LayerNorm",),
            "ffn.inner": (f"{layer}.intermediate.dense",),
            "ffn.outer": (f"{layer}.output.dense",),
            "ffn_norm": (f"{layer}.output.LayerNorm",),
        },
        bias,
        defaults,
    )


_ROBERTA_HEAD = {
    "head.transform.dense": "lm_head.dense",
    "head.transform.norm": "lm_head.layer_norm",
    "head": "lm_head.decoder",
}
_CLASSES = {
    Family.bert: _bert(
        "BertForMaskedLM",
        "bert",
        {
            "head.transform.dense": "cls.predictions.transform.dense",
            "head.transform.norm": "cls.predictions.transform.LayerNorm",
            "head": "cls.predictions.decoder",
        },
        "cls.predictions.bias",
        _BERT_DEFAULTS,
    ),
    Family.roberta: _bert("RobertaForMaskedLM", "roberta", _ROBERTA_HEAD, "lm_head.bias", _ROBERTA_DEFAULTS),
    Family.xlm_roberta: _bert("XLMRobertaForMaskedLM", "roberta", _ROBERTA_HEAD, "lm_head.bias", _ROBERTA_DEFAULTS),
    Family.modernbert: HfClass(
        "ModernBertForMaskedLM",
        {
            "encoder.token_embeddings": "model.embeddings.tok_embeddings",
            "encoder.embedding_norm": "model.embeddings.norm",
            "encoder.final_norm": "model.final_norm",
            "head.transform.dense": "head.dense",
            "head.transform.norm": "head.norm",
            "head": "decoder",
        },
        {
            "attention.qkv": ("model.layers.{}.attn.Wqkv",),
            "attention.out": ("model.layers.{}.attn.Wo",),
            "attention_norm": ("model.layers.{}.attn_norm",),
            "ffn.inner": ("model.layers.{}.mlp.Wi",),
            "ffn.outer": ("model.layers.{}.mlp.Wo",),
            "ffn_norm": ("model.layers.{}.mlp_norm",),
        },
        "decoder.bias",
        {
            "hidden_activation": "gelu",
            "classifier_activation": "gelu",
            "mlp_dropout": 0.0,
            "attention_dropout": 0.0,
            "norm_eps": 1e-5,
            "local_attention": 128,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "max_position_embeddings": 8192,
            "intermediate_size": 1152,
            "bos_token_id": 50281,
            "eos_token_id": 50282,
            "pad_token_id": 50283,
        },
    ),
}
MODEL_TYPES = {family.value.replace("_", "-"): family for family in _CLASSES}
"""``model_type`` in config.json -> family."""
_FIXED = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
}
"""Settings that change the network, with the only value that can be read; ModernBERT has other position embeddings."""


class NumberedVocab(Vocab):
    """Vocabulary of a model whose folder has no tokenizer: ids without text, and the special ids of ``config.json``."""

    def __init__(self, size: int, special: SpecialIds) -> None:
        super().__init__((f"<{i}>", 0) for i in range(len(Vocab([])), size))
        self.special, self.fingerprint = special, f"{size} ids, {special}"
        self.is_special = np.isin(np.arange(size), special[:-1])


def read_family(settings: Mapping[str, Any], weights: dict[str, torch.Tensor]) -> tuple[ModelConfig, SpecialIds]:
    """Return the model's shape and special ids from its ``config.json``; ``unk`` and ``mask`` are not there: -1.

    Raises ValueError for an architecture that cannot be read, KeyError or TypeError for a damaged file.
    """
    family = MODEL_TYPES[settings["model_type"]]
    found = {**_CLASSES[family].defaults, **{key: value for key, value in settings.items() if value is not None}}
    for key, only in _FIXED.items():
        if found.get(key, only) != only and (key, family) != ("position_embedding_type", Family.modernbert):
            raise ValueError(f"config.json: {key} is {found[key]!r}, only {only!r} can be read")
    dim, tied = int(found["hidden_size"]), bool(found.get("tie_word_embeddings", True))
    # transformers, too, unties an output matrix that differs.
    output = weights.get(_CLASSES[family].modules["head"] + ".weight")
    table = weights.get(_CLASSES[family].modules["encoder.token_embeddings"] + ".weight")
    if tied and output is not None and table is not None:
        tied = torch.equal(output, table)
    pad = int(found["pad_token_id"])
    config = ModelConfig(
        family=family,
        dim=dim,
        layers=int(found["num_hidden_layers"]),
        heads=int(found["num_attention_heads"]),
        ffn_dim=0 if found["intermediate_size"] == 4 * dim else int(found["intermediate_size"]),
        tie_embeddings=tied,
        language_embeddings=False,
        **(_modernbert_parts(found) if family is Family.modernbert else _bert_parts(found)),
    )
    if config.parts.after_pad:
        config.max_positions -= pad + 1
    if problems := list(config.problems()):
        raise ValueError(f"config.json: {problems[0]}")
    ids = (found.get(f"{name}_token_id", -1) for name in ("bos", "eos"))
    bos, eos = (i if isinstance(i, int) else -1 for i in ids)
    return config, SpecialIds(bos, eos, pad, unk=-1, mask=-1)


def _activation(name: str) -> Activation:
    if name not in ("gelu", "relu"):
        raise ValueError(f"config.json: the activation is {name!r}, only gelu and relu can be read")
    return Activation(name)


def _layer_types(layers: int, every: int) -> list[str]:
    return [_LOCAL[layer % every > 0] for layer in range(layers)]


def _bert_parts(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "max_positions": int(found["max_position_embeddings"]),
        "dropout": float(found["hidden_dropout_prob"]),
        "attention_dropout": float(found["attention_probs_dropout_prob"]),
        "activation": _activation(found["hidden_act"]),
        "norm_eps": float(found["layer_norm_eps"]),
        "token_types": int(found["type_vocab_size"]),
    }


def _modernbert_parts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts; older files have other names for the layers' types and the rotary positions."""
    layers, every = int(found["num_hidden_layers"]), int(found["global_attn_every_n_layers"])
    types = found.get("layer_types", _layer_types(layers, every))
    if types != _layer_types(layers, every):
        every = next((layer for layer in range(1, layers) if types[layer] == _LOCAL[0]), layers)
        if types != _layer_types(layers, every):
            raise ValueError("config.json: layer_types are not full_attention in every so many layers, from the first")
    ropes = found.get("rope_parameters") or {}
    if found.get("rope_scaling") or any(rope.get("rope_type", "default") != "default" for rope in ropes.values()):
        raise ValueError("config.json: rotary positions are scaled; only rope_type 'default' can be read")
    if found["classifier_activation"] != found["hidden_activation"]:
        raise ValueError("config.json: classifier_activation differs from hidden_activation, which cannot be read")
    thetas = [
        ropes.get(kind, {}).get("rope_theta", found[f"{name}_rope_theta"])
        for kind, name in zip(_LOCAL, ("global", "local"))
    ]
    return {
        "max_positions": int(found["max_position_embeddings"]),
        "dropout": float(found["mlp_dropout"]),
        "attention_dropout": float(found["attention_dropout"]),
        "activation": _activation(found["hidden_activation"]),
        "norm_eps": float(found["norm_eps"]),
        "global_every": every,
        "local_attention": int(found["local_attention"]),
        "rope_theta": float(thetas[0]),
        "local_rope_theta": float(thetas[1]),
    }


def family_settings(config: ModelConfig, pad: int) -> dict[str, Any]:
    """Return the part of ``config.json`` that :func:`read_family` reads back, without the special ids.

    ``pad``: id of the padding.
    """
    activation = config.activation.value
    common = {
        "model_type": config.family.value.replace("_", "-"),
        "architectures": [_CLASSES[config.family].architecture],
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn_width,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_dropout": config.attention_dropout,
    }
    if config.family is not Family.modernbert:
        del common["attention_dropout"]
        return common | {
            "max_position_embeddings": config.max_positions + (pad + 1 if config.parts.after_pad else 0),
            "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.attention_dropout,
            "hidden_act": activation,
            "layer_norm_eps": config.norm_eps,
            "type_vocab_size": config.token_types,
        }
    thetas = zip(_LOCAL, (config.rope_theta, config.local_rope_theta))
    return common | {
        "max_position_embeddings": config.max_positions,
        "embedding_dropout": config.dropout,
        "mlp_dropout": config.dropout,
        "hidden_activation": activation,
        "classifier_activation": activation,
        "norm_eps": config.norm_eps,
        "local_attention": config.local_attention,
        "global_attn_every_n_layers": config.global_every,
        "layer_types": _layer_types(config.layers, config.global_every),
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas},
    }


def from_family_weights(weights: dict[str, torch.Tensor], config: ModelConfig, where: Path) -> dict[str, torch.Tensor]:
    """Return the state dict of a :class:`~xlmtrain.model.language_model.LanguageModel`.

    Raises ValueError for a weight that the class does not have; one that is missing is left out. ``where``: names the
    model in the log.
    """
    chosen = _CLASSES[config.family]
    left = {re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)): t for name, t in weights.items()}
    if not any(name.startswith(chosen.prefix) for name in left):  # an encoder alone
        left = {chosen.prefix + name: tensor for name, tensor in left.items()}
    left = {name: tensor for name, tensor in left.items() if not _WITHOUT_EFFECT.search(name)}
    # Tied, transformers writes the output layer's bias under one of two names; else the layer's own is used.
    if chosen.bias in left:
        bias = left.pop(chosen.bias)
        left.setdefault(f"{chosen.modules['head']}.bias", bias)
    result: dict[str, torch.Tensor] = {}
    for ours, theirs in _names(config):
        if all(name in left for name in theirs):
            found = [left.pop(name) for name in theirs]
            result[ours] = found[0] if len(found) == 1 else torch.cat(found)
    if config.tie_embeddings:
        result.pop("head.weight", None)
    if left:
        raise ValueError(
            f"{min(left)} is not a weight of {chosen.architecture}; of a classifier, save the encoder alone, in "
            "transformers: model.base_model.save_pretrained(...)"
        )
    if not any(name.startswith("head.") for name in result) and _TABLE in result:
        log.warning("%s: has no prediction head; a new one with random weights is used", where)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = Head(config, len(result[_TABLE]))
        result |= {f"head.{name}": weight.detach() for name, weight in head.state_dict().items()}
    return result


def to_family_weights(weights: Mapping[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Return the weights under transformers' names, the inverse of :func:`from_family_weights`."""
    chosen = _CLASSES[config.family]
    result: dict[str, torch.Tensor] = {}
    for ours, theirs in _names(config):
        if ours in weights:
            result |= dict(zip(theirs, weights[ours].chunk(len(theirs))))
    bias = result[f"{chosen.modules['head']}.bias"]
    if config.tie_embeddings:
        del result[f"{chosen.modules['head']}.bias"]
    return {**result, chosen.bias: bias}


def _names(config: ModelConfig) -> Iterator[tuple[str, list[str]]]:
    """Yield our name and theirs of every weight that the family may have."""
    chosen = _CLASSES[config.family]
    for kind in ("weight", "bias"):
        for ours, theirs in chosen.modules.items():
            yield f"{ours}.{kind}", [f"{theirs}.{kind}"]
        for layer in range(config.layers):
            for ours, several in chosen.block.items():
                yield f"encoder.blocks.{layer}.{ours}.{kind}", [f"{name.format(layer)}.{kind}" for name in several]
