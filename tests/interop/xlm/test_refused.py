"""Files that look like the original XLM's checkpoints and are not, or not of a model that this program has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.oracle import Oracle
from tests.support.xlm_model import oracle_content, save
from xlmtrain.errors import CheckpointError
from xlmtrain.interop.formats import read_model

OUTPUT = "pred_layer.proj.weight"


def dropped(part: str, key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part].pop(key)


def put(part: str, key: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part].update({key: value})


def without_a_word(content: dict[str, Any]) -> None:
    content["dico_id2word"].pop(199)


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no params": (lambda content: content.pop("params"), "has no params"),
    "params of another kind": (lambda content: content.update(params=[1]), "has no params"),
    "no model": (lambda content: content.pop("model"), "neither 'model' nor 'encoder' is in it; there are epoch, "),
    "a decoder only": (
        lambda content: content.update(decoder=content.pop("model")),
        "neither 'model' nor 'encoder' is in it; there are ",
    ),
    "a decoder's norm": (put("model", "layer_norm15.0.weight", torch.ones(64)), "layer_norm15.0.weight is in it; deco"),
    "a decoder's attention": (
        put("model", "module.encoder_attn.0.q_lin.bias", torch.ones(64)),
        "encoder_attn.0.q_lin.bias is in it; decoders,",
    ),
    "adaptive softmax": (put("model", "pred_layer.proj.head.weight", torch.ones(9, 64)), "adaptive softmax cannot"),
    "product-key memory": (put("model", "memories.0_in.keys", torch.ones(9, 64)), "memories.0_in.keys is in it"),
    "a weight missing": (dropped("model", "ffns.1.lin2.bias"), "KeyError: 'ffns.1.lin2.bias'"),
    "positions missing": (dropped("model", "position_embeddings.weight"), "KeyError: 'position_embeddings.weight'"),
    "the output's bias missing": (dropped("model", "pred_layer.proj.bias"), "head.bias is None, not (200,)"),
    "the first layer missing": (
        lambda content: content.update(model={n: w for n, w in content["model"].items() if "s.0." not in n}),
        "KeyError",
    ),
    "a weight of another shape": (
        put("model", "ffns.1.lin2.bias", torch.ones(63)),
        "encoder.blocks.1.ffn.outer.bias is (63,), not (64,)",
    ),
    "queries of another shape": (put("model", "attentions.0.q_lin.weight", torch.ones(3, 5)), "RuntimeError"),
    "no bias at all": (put("model", "attentions.0.q_lin.bias", torch.tensor(1.0)), "RuntimeError"),
    "an untied output in a tied model": (put("model", OUTPUT, torch.ones(200, 64)), "head.weight is (200, 64), not"),
    "a weight that is no tensor": (put("model", "ffns.1.lin2.bias", [1.0] * 64), "ffns.1.lin2.bias is not a plain"),
    "integer weights": (put("model", "ffns.1.lin2.bias", torch.ones(64, dtype=torch.int)), "ffns.1.lin2.bias is not"),
    "complex weights": (put("model", "ffns.1.lin2.bias", torch.ones(64, dtype=torch.complex64)), "ffns.1.lin2.bias is"),
    "sparse weights": (put("model", "ffns.1.lin2.weight", torch.eye(64).to_sparse()), "_rebuild_sparse_tensor"),
    "weights without numbers": (put("model", "ffns.1.lin2.bias", torch.empty(64, device="meta")), "_rebuild_meta_"),
    "4 TB of one number": (
        put("model", "embeddings.weight", torch.ones(1, dtype=torch.half).expand(10**6, 10**6)),
        "embeddings.weight is not a plain tensor",
    ),
    "more layers in params": (put("params", "n_layers", 3), "has the weights of 2 layers, its settings say 3"),
    "a billion layers": (put("params", "n_layers", 10**9), "has the weights of 2 layers, its settings say 1000000000"),
    "another width": (put("params", "emb_dim", 128), "does not fit the model"),
    "no width": (put("params", "emb_dim", 0), "its 4 heads do not divide its width, 0"),
    "heads that do not divide it": (put("params", "n_heads", 5), "its 5 heads do not divide its width, 64"),
    "no heads": (put("params", "n_heads", 0), "its 0 heads do not divide its width, 64"),
    "a width of the wrong type": (put("params", "emb_dim", "wide"), "invalid literal"),
    "heads of the wrong type": (
        put("params", "n_heads", None),
        "must be a string, a bytes-like object or a real number",
    ),
    "an endless number of layers": (put("params", "n_layers", float("inf")), "OverflowError"),
    "a dropout of the wrong type": (put("params", "dropout", torch.ones(3)), "only one element"),
    "a dropout of 2": (put("params", "dropout", 2.0), "there is no model with its settings (dropout"),
    "no width in params": (dropped("params", "emb_dim"), "KeyError: 'emb_dim'"),
    "no languages in params": (dropped("params", "id2lang"), "KeyError: 'id2lang'"),
    "odd languages": (
        put("params", "id2lang", ["de", torch.ones(2)]),
        "its languages are ['de', 'tensor(",
    ),
    "a language without an id": (put("params", "id2lang", {0: "de", 2: "en"}), "KeyError: 1"),
    "no language": (put("params", "id2lang", {}), "its languages are []"),
    "the same language twice": (put("params", "id2lang", {0: "de", 1: "de"}), "its languages are ['de', 'de']"),
    "a language that is a path": (
        put("params", "id2lang", {0: "de", 1: "../en"}),
        "'../en']; expected different names",
    ),
    "three languages": (put("params", "id2lang", {0: "de", 1: "en", 2: "fr"}), "is (2, 64), not (3, 64)"),
    "no vocabulary": (lambda content: content.pop("dico_id2word"), "KeyError: 'dico_id2word'"),
    "a vocabulary of the wrong type": (lambda content: content.update(dico_id2word=5), "its dictionary is incomplete"),
    "a hole in the ids": (
        lambda content: content["dico_id2word"].update({300: content["dico_id2word"].pop(77)}),
        "the ids of its 200 words are not 0 to 199",
    ),
    "other special symbols": (put("dico_id2word", 5, "[MASK]"), "its first 14 words are not <s> to <special9>"),
    "special symbols in another order": (
        lambda content: content["dico_id2word"].update({0: "<pad>", 2: "<s>"}),
        "its first 14 words are not",
    ),
    "fewer words than rows": (without_a_word, "is (200, 64), not (199, 64)"),
    "a word twice": (put("dico_id2word", 20, "die"), "a word is there twice, or is not text"),
    "a word that is a number": (put("dico_id2word", 20, 20), "a word is there twice, or is not text"),
    "a count that is a word": (put("dico_counts", "die", "often"), "the count of 'die' is not a number from 0"),
    "a count too large": (put("dico_counts", "die", 10**30), "the count of 'die' is not a number from 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_files_of_other_models_are_refused(oracle: Oracle, what: str, tmp_path: Path) -> None:
    content = oracle_content(oracle)
    change, message = REFUSED[what]
    change(content)
    path = save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError) as refusal:
        read_model(path)
    text = str(refusal.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text
    assert len(text) < 400 + len(str(path))
