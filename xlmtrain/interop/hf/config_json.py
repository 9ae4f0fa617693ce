"""``config.json`` of a Hugging Face folder: that of XLM here, those of other families in :mod:`.families`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from xlmtrain.config.families import Family
from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.interop.bundle import FinetunedBundle, ModelBundle
from xlmtrain.interop.hf.class_names import class_name
from xlmtrain.interop.hf.classifier_config import classifier_settings, head_of
from xlmtrain.interop.hf.families import family_settings
from xlmtrain.interop.xlm.conversion import model_config
from xlmtrain.text.tokenizer_json import TokenizerVocab
from xlmtrain.text.vocab import SpecialIds

_OTHER_NAMES = {"hidden_size": "emb_dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
_DEFAULTS = {
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "gelu_activation": True,
    "sinusoidal_embeddings": False,
    "use_lang_emb": True,
}


def config_json(bundle: ModelBundle[Any], vocab_size: int) -> dict[str, Any]:
    """Return the content of ``config.json``; ``vocab_size``: rows of the token embeddings."""
    config, special = bundle.config, bundle.vocab.special
    common = {
        "architectures": [class_name(config.family, head_of(bundle))],
        "vocab_size": vocab_size,
        "causal": bundle.causal,
        "lang2id": {name: i for i, name in enumerate(bundle.languages)},
        "id2lang": dict(enumerate(bundle.languages)),
        "torch_dtype": "float32",
        **(classifier_settings(bundle) if isinstance(bundle, FinetunedBundle) else {}),
    }
    if config.family is not Family.xlm:
        roles = {"bos": special.bos, "cls": special.bos, "eos": special.eos, "sep": special.eos, "pad": special.pad}
        ids = {f"{role}_token_id": i for role, i in roles.items() if i >= 0}
        return {**family_settings(config, special.pad), **common, **ids}
    roles = {"bos": special.bos if isinstance(bundle.vocab, TokenizerVocab) else 0}
    roles |= {"eos": special.eos, "pad": special.pad}
    return {
        **common,
        "model_type": "xlm",
        "emb_dim": config.dim,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "max_position_embeddings": config.max_positions,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "gelu_activation": config.activation is Activation.gelu,
        "sinusoidal_embeddings": config.sinusoidal_positions,
        "layer_norm_eps": config.norm_eps,
        "embed_init_std": config.dim**-0.5,
        "tie_word_embeddings": config.tie_embeddings,
        "asm": False,
        "is_encoder": True,
        "use_lang_emb": config.language_embeddings,
        "n_langs": len(bundle.languages),
        "lang_id": 0,
        # transformers 5 reads the first name of each, transformers 4 the second.
        **{f"{role}_{kind}": i for role, i in roles.items() for kind in ("token_id", "index")},
        "unk_index": max(special.unk, 0),
        "mask_index": special.mask,
        "mask_token_id": special.mask,
    }


def read_xlm_config(settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> ModelConfig:
    """Return the shape of an XLM. Raises ValueError for another architecture.

    ``weights``: under the names of the original XLM.
    """
    fixed = {"model_type": "xlm", "asm": False, "is_encoder": True, "layer_norm_eps": ModelConfig.norm_eps}
    _check_settings({key: settings.get(key) for key in fixed}, fixed)
    params = {_OTHER_NAMES.get(name, name): value for name, value in settings.items()}
    tied = settings.get("tie_word_embeddings", True)
    return model_config({**_DEFAULTS, **params, "share_inout_emb": tied}, weights)


def check_special_ids(settings: Mapping[str, Any], special: SpecialIds) -> None:
    """Raise ValueError for special ids other than those of the vocabulary."""
    found = {key: settings.get(key) for key in ("unk_index", "mask_index")}
    found |= {name: settings.get(f"{name}_token_id", settings.get(f"{name}_index")) for name in ("eos", "pad")}
    fixed = {"unk_index": max(special.unk, 0), "mask_index": special.mask, "eos": special.eos, "pad": special.pad}
    _check_settings(found, fixed)


def _check_settings(found: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, value in found.items():
        if value not in (None, fixed[key]):
            raise ValueError(f"config.json: {key} is {value!r}, only {fixed[key]!r} can be read")
