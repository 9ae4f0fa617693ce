"""The ancestor's names of the weights, and ours.

Its checkpoints group modules by kind (``attentions.3.q_lin``), ours by block, with queries, keys and values in one
matrix. Nothing but names and that split differs.
"""

from __future__ import annotations

import re

import torch

_TOP = {
    "embeddings.weight": "encoder.token_embeddings.weight",
    "position_embeddings.weight": "encoder.position_embeddings.weight",
    "lang_embeddings.weight": "encoder.language_embeddings.weight",
    "layer_norm_emb.weight": "encoder.embedding_norm.weight",
    "layer_norm_emb.bias": "encoder.embedding_norm.bias",
    "pred_layer.proj.bias": "head.bias",
}
_BLOCK = {
    "attentions.{}.out_lin": "attention.out",
    "layer_norm1.{}": "attention_norm",
    "ffns.{}.lin1": "ffn.inner",
    "ffns.{}.lin2": "ffn.outer",
    "layer_norm2.{}": "ffn_norm",
}
_OUTPUT = "pred_layer.proj.weight"


def from_original(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of a :class:`~xlmtrain.objective.LanguageModel` from the ancestor's encoder.

    Takes gradients under the same names too. An output matrix that equals the embeddings is the tied one.
    """
    result = {ours: tensors[theirs] for theirs, ours in _TOP.items() if theirs in tensors}
    output = tensors.get(_OUTPUT)
    if output is not None and not torch.equal(output, tensors["embeddings.weight"]):
        result["head.weight"] = output
    layers = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"attentions\.(\d+)\.", name)))
    for layer in range(layers):
        for kind in ("weight", "bias"):
            ours = f"encoder.blocks.{layer}."
            parts = [tensors[f"attentions.{layer}.{part}_lin.{kind}"] for part in "qkv"]
            result[f"{ours}attention.qkv.{kind}"] = torch.cat(parts)
            for theirs, name in _BLOCK.items():
                result[f"{ours}{name}.{kind}"] = tensors[f"{theirs.format(layer)}.{kind}"]
    return result


def to_original(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The ancestor's encoder from our state dict; the tied matrix stands under both of its names."""
    result = {theirs: tensors[ours] for theirs, ours in _TOP.items() if ours in tensors}
    result[_OUTPUT] = tensors.get("head.weight", tensors["encoder.token_embeddings.weight"])
    layers = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"encoder\.blocks\.(\d+)\.", name)))
    for layer in range(layers):
        for kind in ("weight", "bias"):
            ours = f"encoder.blocks.{layer}."
            for part, tensor in zip("qkv", tensors[f"{ours}attention.qkv.{kind}"].chunk(3)):
                result[f"attentions.{layer}.{part}_lin.{kind}"] = tensor
            for theirs, name in _BLOCK.items():
                result[f"{theirs.format(layer)}.{kind}"] = tensors[f"{ours}{name}.{kind}"]
    return result
