"""Weights under the names of transformers' classes, and the files that hold them.

A prediction head that is missing, as in a file of the encoder alone, is replaced by a new one; not for XLM.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xlmtrain.config.families import Family
from xlmtrain.config.model import ModelConfig
from xlmtrain.interop.hf.class_names import CLASSES, XLM_HEADS, HeadKind, class_name, weight_names
from xlmtrain.interop.xlm.conversion import BIAS as PREDICTION_BIAS
from xlmtrain.interop.xlm.conversion import OUTPUT as PREDICTION
from xlmtrain.interop.xlm.conversion import from_xlm_state_dict, to_xlm_state_dict
from xlmtrain.interop.xlm.pth import read_checkpoint_file
from xlmtrain.model.head import Head
from xlmtrain.runtime.atomic_io import read_json

log = logging.getLogger(__name__)
_TABLE = "encoder.token_embeddings.weight"
_CONSTANTS = r"\.?(position_ids|token_type_ids|inv_freq|attn\.rotary_emb\.\w+)$"
_WITHOUT_EFFECT = {
    HeadKind.masked: re.compile(rf"^(\w+\.)?pooler\.|^cls\.seq_relationship\.|{_CONSTANTS}"),
    HeadKind.texts: re.compile(_CONSTANTS),
    HeadKind.words: re.compile(rf"^(\w+\.)?pooler\.|{_CONSTANTS}"),
}
"""Weights that the model does not use, by its head: of sentence classification, and constants."""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return all weights in fp32. Raises ValueError if a number is not finite."""
    parts = (load_file(f) if f.suffix == ".safetensors" else read_checkpoint_file(f) for f in _weight_files(path))
    weights = {name: weight.float() for part in parts for name, weight in part.items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} has numbers that are not finite; training diverged, or the file is damaged")
    return weights


def _weight_files(path: Path) -> list[Path]:
    """Return the files of the weights. transformers divides large models, and lists the parts in an index."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{name}.index.json"
        if (path / name).is_file():
            return [path / name]
        if index.is_file():
            return sorted({path / Path(part).name for part in read_json(index)["weight_map"].values()})
    raise ValueError("no model.safetensors and no pytorch_model.bin")


def write_weights(path: Path, weights: dict[str, torch.Tensor], config: ModelConfig, head: HeadKind) -> None:
    """Write the weights under transformers' names. Raises OSError, for example on a full disk."""
    theirs = (_to_xlm if config.family is Family.xlm else _to_family)(weights, config, head)
    try:
        # Cloned: queries, keys and values are views of one tensor, which safetensors refuses.
        save_file({name: weight.clone() for name, weight in theirs.items()}, path, {"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from None
    path.chmod(0o644)  # safetensors writes files that only their owner can read


def ties_output(weights: Mapping[str, torch.Tensor], family: Family) -> bool:
    """Return False for an output matrix of transformers' ``weights`` that differs from the embeddings.

    transformers, too, unties such a matrix, whatever ``config.json`` says.
    """
    chosen = CLASSES[family]
    output = weights.get(f"{chosen.heads[HeadKind.masked]['head']}.weight")
    table = weights.get(f"{chosen.encoder['encoder.token_embeddings']}.weight")
    return output is None or table is None or torch.equal(output, table)


def without_prefix(weights: Mapping[str, torch.Tensor], head: HeadKind) -> dict[str, torch.Tensor]:
    """Return transformers' weights of XLM under the names of the original. Raises ValueError without output layer."""
    weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    if head is HeadKind.masked and PREDICTION_BIAS not in weights:
        raise ValueError("no output layer; it is an encoder, and only models with a head can be read")
    return weights


def from_xlm_weights(weights: dict[str, torch.Tensor], config: ModelConfig, head: HeadKind) -> dict[str, torch.Tensor]:
    """Return our state dict of the weights that :func:`without_prefix` returned."""
    if head is HeadKind.masked:
        return from_xlm_state_dict(weights, untied=not config.tie_embeddings)
    own = {name: weight for name, weight in weights.items() if not name.startswith("pred_layer")}
    names = {f"{ours}.{k}": f"{theirs}.{k}" for ours, theirs in XLM_HEADS[head].items() for k in ("weight", "bias")}
    return from_xlm_state_dict(own) | {ours: weights[theirs] for ours, theirs in names.items()}


def _to_xlm(weights: dict[str, torch.Tensor], config: ModelConfig, head: HeadKind) -> dict[str, torch.Tensor]:
    theirs = to_xlm_state_dict(weights)
    if config.tie_embeddings or head is not HeadKind.masked:
        del theirs[PREDICTION]
    result = {name if name.startswith("pred_layer") else f"transformer.{name}": t for name, t in theirs.items()}
    if head is not HeadKind.masked:
        (ours, name), *_ = XLM_HEADS[head].items()
        result |= {f"{name}.{kind}": weights[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    return result


def from_family_weights(
    weights: dict[str, torch.Tensor], config: ModelConfig, head: HeadKind, where: Path
) -> dict[str, torch.Tensor]:
    """Return the state dict of a language model or, by ``head``, of a classifier.

    Raises ValueError for a weight that the class does not have; one that is missing is left out. ``where``: names the
    model in the log.
    """
    chosen, masked = CLASSES[config.family], head is HeadKind.masked
    left = {re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)): t for name, t in weights.items()}
    if not any(name.startswith(chosen.prefix) for name in left):  # an encoder alone
        left = {chosen.prefix + name: tensor for name, tensor in left.items()}
    left = {name: tensor for name, tensor in left.items() if not _WITHOUT_EFFECT[head].search(name)}
    # Tied, transformers writes the output layer's bias under one of two names; else the layer's own is used.
    if chosen.bias in left:
        bias = left.pop(chosen.bias)
        left.setdefault(f"{chosen.heads[HeadKind.masked]['head']}.bias", bias)
    result: dict[str, torch.Tensor] = {}
    for ours, theirs in weight_names(config.family, config.layers, head):
        if all(name in left for name in theirs):
            found = [left.pop(name) for name in theirs]
            result[ours] = found[0] if len(found) == 1 else torch.cat(found)
    if config.tie_embeddings:
        result.pop("head.weight", None)
    if left:
        raise ValueError(f"{min(left)} is not a weight of {class_name(config.family, head)}")
    if masked and not any(name.startswith("head.") for name in result) and _TABLE in result:
        log.warning("%s: has no prediction head; a new one is used", where)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = Head(config, len(result[_TABLE]))
        result |= {f"head.{name}": weight.detach() for name, weight in layer.state_dict().items()}
    return result


def _to_family(weights: dict[str, torch.Tensor], config: ModelConfig, head: HeadKind) -> dict[str, torch.Tensor]:
    chosen = CLASSES[config.family]
    result: dict[str, torch.Tensor] = {}
    for ours, theirs in weight_names(config.family, config.layers, head):
        if ours in weights:
            result |= dict(zip(theirs, weights[ours].chunk(len(theirs))))
    if head is not HeadKind.masked:
        return result
    layer = chosen.heads[head]["head"]
    bias = result[f"{layer}.bias"]
    if config.tie_embeddings:
        del result[f"{layer}.bias"]
    return {**result, chosen.bias: bias}
