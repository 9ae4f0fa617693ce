"""Checkpoints as the original XLM saves them, and what their weights compute, straight from its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from tests.support.oracle import Oracle
from xlmtrain.text.vocab import SPECIALS

CODES = "i e</w> 9\nd ie</w> 8\nk a 7\nka t 6\nz e</w> 5\n"
"""BPE codes under which ``die katze`` is ``die kat@@ ze``."""

Weights = dict[str, torch.Tensor]


def oracle_content(oracle: Oracle) -> dict[str, Any]:
    """A whole checkpoint of the oracle's weights, with some of the many settings that one holds."""
    weights, counts = oracle.group("state_dict."), oracle.numbers["counts"]
    words = [*SPECIALS, "die", "kat@@", "ze", *(f"w{i}" for i in range(len(counts) - 3))]
    settings = {
        "encoder_only": True,
        "emb_dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "dropout": 0.1,
        "attention_dropout": 0.2,
        "gelu_activation": True,
        "share_inout_emb": True,
        "sinusoidal_embeddings": False,
        "use_lang_emb": True,
        "use_memory": False,
        "asm": False,
        "lgs": "de-en",
        "id2lang": {0: "de", 1: "en"},
        "lang2id": {"de": 0, "en": 1},
        "n_langs": 2,
        "n_words": len(words),
        "mlm_steps": [("de", None), ("de", "en")],
        "pred_probs": torch.tensor([0.8, 0.1, 0.1]),
        "mask_scores": np.ones(len(words)),
        "max_vocab": -1,
    }
    return {
        "epoch": 3,
        "n_total_iter": 1234,
        "best_metrics": {"valid_mlm_ppl": np.float64(17.5)},
        "best_stopping_criterion": -1e12,
        "model": {**weights, "pred_layer.proj.weight": weights["embeddings.weight"]},
        "dico_id2word": dict(enumerate(words)),
        "dico_word2id": {word: i for i, word in enumerate(words)},
        "dico_counts": dict(zip(words, [0] * len(SPECIALS) + counts)),
        "params": settings,
    }


def save(content: Any, path: Path, legacy: bool = False) -> Path:
    """``content`` as a file; ``legacy``: as torch wrote it before 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def logits(weights: Weights, tokens: torch.Tensor, languages: torch.Tensor, relu: bool = False) -> torch.Tensor:
    """(B, T, V) for ``tokens``, ``languages`` (B, T), none of them padded: the original's model of 4 heads, written
    down once more and as plainly as can be."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    x = weights["embeddings.weight"][tokens] + weights["position_embeddings.weight"][: tokens.shape[1]]
    if "lang_embeddings.weight" in weights:
        x = x + weights["lang_embeddings.weight"][languages]
    x = norm(x, "layer_norm_emb")
    for layer in range(2):
        heads = [linear(x, f"attentions.{layer}.{part}_lin").unflatten(2, (4, -1)).transpose(1, 2) for part in "qkv"]
        q, k, v = heads
        mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
        x = norm(x + linear(mixed.transpose(1, 2).flatten(2), f"attentions.{layer}.out_lin"), f"layer_norm1.{layer}")
        inner = linear(x, f"ffns.{layer}.lin1")
        x = norm(x + linear(F.relu(inner) if relu else F.gelu(inner), f"ffns.{layer}.lin2"), f"layer_norm2.{layer}")
    return linear(x, "pred_layer.proj")
