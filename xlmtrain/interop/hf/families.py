"""``config.json`` of transformers' families, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlmtrain.config.families import PARTS, Family
from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.text.vocab import SpecialIds

_LOCAL = ("full_attention", "sliding_attention")
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
_DEFAULTS = {
    Family.bert: _BERT_DEFAULTS,
    Family.roberta: _ROBERTA_DEFAULTS,
    Family.xlm_roberta: _ROBERTA_DEFAULTS,
    Family.modernbert: {
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
    Family.jina_embeddings_v3: {
        **_ROBERTA_DEFAULTS,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "intermediate_size": 4096,
        "max_position_embeddings": 8194,
        "rope_theta": 20000.0,
    },
}
"""Values that the file may lack."""
_TYPES = {Family.xlm_roberta: "xlm-roberta"}
MODEL_TYPES = {_TYPES.get(family, family.value): family for family in _DEFAULTS}
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
"""Settings that change the network, with the only value that can be read.

``position_embedding_type`` is not looked at in rotary families.
"""


def read_family(settings: Mapping[str, Any], tied: bool) -> tuple[ModelConfig, SpecialIds]:
    """Return the model's shape and special ids from its ``config.json``; ``unk`` and ``mask`` are not there: -1.

    ``tied``: the output layer may share its matrix with the embeddings. Raises ValueError for an architecture that
    cannot be read, KeyError or TypeError for a damaged file.
    """
    family = MODEL_TYPES[settings["model_type"]]
    found = {**_DEFAULTS[family], **{key: value for key, value in settings.items() if value is not None}}
    for key, only in _FIXED.items():
        if found.get(key, only) != only and not (key == "position_embedding_type" and PARTS[family].rotary):
            raise ValueError(f"config.json: {key} is {found[key]!r}, only {only!r} can be read")
    dim, pad = int(found["hidden_size"]), int(found["pad_token_id"])
    config = ModelConfig(
        family=family,
        dim=dim,
        layers=int(found["num_hidden_layers"]),
        heads=int(found["num_attention_heads"]),
        ffn_dim=0 if found["intermediate_size"] == 4 * dim else int(found["intermediate_size"]),
        tie_embeddings=tied and bool(found.get("tie_word_embeddings", True)),
        language_embeddings=False,
        **(_modernbert_parts(found) if family is Family.modernbert else _bert_parts(found, family)),
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


def _rope_theta(rope: Mapping[str, Any], default: float) -> float:
    """Return the base of rotary positions. Raises ValueError for scaled ones."""
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError("config.json: rotary positions are scaled; only rope_type 'default' can be read")
    return float(rope.get("rope_theta", default))


def _bert_parts(found: Mapping[str, Any], family: Family) -> dict[str, Any]:
    rope = found.get("rope_scaling") or found.get("rope_parameters") or {}  # transformers, too, prefers the older name
    rotary = {"rope_theta": _rope_theta(rope, found["rope_theta"])} if PARTS[family].rotary else {}
    return rotary | {
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
    _rope_theta(found.get("rope_scaling") or {}, 0.0)  # scaled positions are refused
    if found["classifier_activation"] != found["hidden_activation"]:
        raise ValueError("config.json: classifier_activation differs from hidden_activation, which cannot be read")
    thetas = [
        _rope_theta(ropes.get(kind, {}), found[f"{name}_rope_theta"]) for kind, name in zip(_LOCAL, ("global", "local"))
    ]
    return {
        "max_positions": int(found["max_position_embeddings"]),
        "dropout": float(found["mlp_dropout"]),
        "attention_dropout": float(found["attention_dropout"]),
        "activation": _activation(found["hidden_activation"]),
        "norm_eps": float(found["norm_eps"]),
        "global_every": every,
        "local_attention": int(found["local_attention"]),
        "rope_theta": thetas[0],
        "local_rope_theta": thetas[1],
    }


def family_settings(config: ModelConfig, pad: int) -> dict[str, Any]:
    """Return the part of ``config.json`` that :func:`read_family` reads back, without the special ids.

    ``pad``: id of the padding.
    """
    activation = config.activation.value
    common = {
        "model_type": _TYPES.get(config.family, config.family.value),
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn_width,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_dropout": config.attention_dropout,
    }
    if config.family is not Family.modernbert:
        del common["attention_dropout"]
        if config.parts.rotary:
            common["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
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
