"""BERT, RoBERTa, XLM-R and ModernBERT: read from transformers' folders and written for the same classes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.foreign_models import CONFIGS, FAMILIES, foreign, transformers
from xlmtrain.errors import CheckpointError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.hf.model import write_hf_folder
from xlmtrain.interop.hf.parity import check_hf_parity
from xlmtrain.text.vocab import PAD


def padded(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (3, length), and the lengths of the rows, of which the first is full."""
    lengths = torch.tensor([length, 5, length - 3])
    tokens = torch.randint(5, 54, (3, length), generator=torch.Generator().manual_seed(1))
    return tokens.where(torch.arange(length) < lengths[:, None], PAD), lengths


@torch.no_grad()
def assert_same_outputs(bundle: PretrainedBundle, model: Any) -> None:
    """Hidden states of all layers and logits, on a padded batch of full length."""
    ours, length = bundle.module(), bundle.config.max_positions
    tokens, lengths = padded(length)
    valid = torch.arange(length) < lengths[:, None]
    expected = model(tokens, attention_mask=valid.long(), output_hidden_states=True)
    places = torch.arange(length).expand_as(tokens)
    states = list(ours.encoder.hidden_states(tokens, places, 0 * tokens, lengths))
    assert len(states) == len(expected.hidden_states)
    for found, theirs in zip(states, expected.hidden_states):
        torch.testing.assert_close(found[valid], theirs[valid], atol=1e-5, rtol=0)
    logits = ours.head(states[-1][valid], ours.encoder.token_embeddings.weight)
    torch.testing.assert_close(logits, expected.logits[valid], atol=1e-5, rtol=0)


def assert_equal_weights(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    one, two = first.state_dict(), second.state_dict()
    assert one.keys() == two.keys()
    assert not [name for name in one if not torch.equal(one[name], two[name])]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_and_out_again(family: str, tied: bool, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"tie_word_embeddings": tied}
    if family == "modernbert" and not tied:
        changes |= {"layer_types": ["full_attention", "sliding_attention"] * 2, "local_attention": 4, "norm_eps": 1e-6}
        changes["rope_parameters"] = {"full_attention": {"rope_type": "default", "rope_theta": 500.0}}
    model = foreign(family, tmp_path / "in", **changes)
    if not tied and family != "modernbert":  # without effect: the class uses the bias of its decoder
        unused = model.get_parameter("cls.predictions.bias" if family == "bert" else "lm_head.bias")
        unused.data.copy_(model.get_output_embeddings().bias)
    read = read_model(tmp_path / "in")
    assert read.config.tie_embeddings is tied
    assert_same_outputs(read, model)
    (tmp_path / "out").mkdir()
    write_hf_folder(read, tmp_path / "out")
    written = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert_equal_weights(model, written)
    for key, value in {**CONFIGS[family][1], **changes}.items():
        found = getattr(written.config, key)
        assert (found if key != "rope_parameters" else found["full_attention"]["rope_theta"]) in (value, 500.0), key
    assert replace(read_model(tmp_path / "out"), provenance=read.provenance).config == read.config
    assert check_hf_parity(tmp_path / "out", read, {}).difference < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_in_parts_and_in_half_precision(family: str, tmp_path: Path) -> None:
    model = foreign(family).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    read = read_model(tmp_path)
    assert {weight.dtype for weight in read.weights.values()} == {torch.float32}
    assert_same_outputs(read, transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_gets_a_head(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = foreign(family)
    model.base_model.save_pretrained(tmp_path / "encoder")
    with caplog.at_level(logging.WARNING):
        first, second = read_model(tmp_path / "encoder"), read_model(tmp_path / "encoder")
    assert f"{tmp_path / 'encoder'}: has no prediction head; a new one is used" in caplog.text
    model.save_pretrained(tmp_path / "all")
    for name, weight in read_model(tmp_path / "all").weights.items():
        assert torch.equal(weight, first.weights[name]) is name.startswith("encoder."), name
        assert torch.equal(second.weights[name], first.weights[name])


def test_weights_without_effect_and_old_names(tmp_path: Path) -> None:
    """As in files of Google's BERT: a pooler, a head for the next sentence, positions, gamma and beta."""
    model = foreign("bert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t.clone()
        for n, t in weights.items()
    }
    old |= {"bert.pooler.dense.weight": torch.ones(32, 32), "cls.seq_relationship.weight": torch.ones(2, 32)}
    save_file({**old, "bert.embeddings.position_ids": torch.ones(1, 32)}, tmp_path / "model.safetensors")
    assert_same_outputs(read_model(tmp_path), model)


@pytest.mark.parametrize("family", ["bert", "roberta", "jina_embeddings_v3"])
def test_relu(family: str, tmp_path: Path) -> None:
    """RoBERTa's head has GELU even so."""
    model = foreign(family, tmp_path, hidden_act="relu")
    assert_same_outputs(read_model(tmp_path), model)


@pytest.mark.parametrize("rope", [{"rope_theta": 10.0}, {"rope_scaling": {"rope_type": "default", "rope_theta": 10.0}}])
def test_older_names_of_the_rotary_positions(rope: dict[str, Any], tmp_path: Path) -> None:
    model = foreign("jina_embeddings_v3", tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 10.0})
    others = {"lora_adaptations": ["retrieval.query"], "position_embedding_type": "rotary"}
    edit(tmp_path, lambda settings: [settings.pop("rope_parameters"), settings.update(rope | others)])
    read = read_model(tmp_path)
    assert read.config.rope_theta == 10.0
    assert_same_outputs(read, model)


def test_the_settings_of_older_modernberts(tmp_path: Path) -> None:
    """Of before transformers 5: the layers' types and the rotary positions have other names."""
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": 900.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
    }
    types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    model = foreign("modernbert", tmp_path, rope_parameters=rope, layer_types=types)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["rope_parameters"], settings["layer_types"]
    old = {"global_rope_theta": 900.0, "local_rope_theta": 70.0, "global_attn_every_n_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps({**settings, **old, "position_embedding_type": "sans_pos"}))
    assert_same_outputs(read_model(tmp_path), model)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {"hidden_act": "silu"}, "the activation is 'silu', only gelu and relu"),
        ("bert", {"is_decoder": True}, "is_decoder is True, only False"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ("bert", {"num_attention_heads": 5}, "heads: 5 does not divide"),
        ("bert", {"num_hidden_layers": 5}, "has the weights of 4 layers, its settings say 5"),
        ("bert", {"hidden_size": "wide"}, "incomplete or damaged"),
        ("roberta", {"max_position_embeddings": 40}, r"position_embeddings.weight is \(35, 32\), not \(40, 32\)"),
        ("modernbert", {"norm_bias": True}, "norm_bias is True, only False"),
        ("modernbert", {"layer_types": ["sliding_attention"] * 4}, "layer_types are not"),
        ("modernbert", {"rope_scaling": {"rope_type": "yarn"}}, "rotary positions are scaled"),
        ("jina_embeddings_v3", {"rope_parameters": {"type": "linear", "factor": 4}}, "rotary positions are scaled"),
        ("jina_embeddings_v3", {"rope_scaling": {"rope_type": "yarn"}}, "rotary positions are scaled"),
        ("modernbert", {"model_type": "deberta"}, "model_type is 'deberta'; there are xlm, bert, roberta, xlm-roberta"),
    ],
)
def test_other_architectures_are_refused(family: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    foreign(family, tmp_path)
    edit(tmp_path, lambda settings: settings.update(changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w["decoder.bias"].fill_(torch.nan), "decoder.bias has numbers that are not finite"),
        (lambda w: w.pop("model.layers.2.mlp.Wo.weight"), r"encoder.blocks.2.ffn.outer.weight is None"),
        (lambda w: w.pop("head.dense.weight"), "head.transform.dense.weight is None"),
        (
            lambda w: w.update({"classifier.weight": torch.ones(2, 32)}),
            "classifier.weight is not a weight of ModernBert",
        ),
        (lambda w: w.update({"model.layers.1.mlp.Wo.bias": torch.ones(32)}), "encoder.blocks.1.ffn.outer.bias is "),
    ],
)
def test_damaged_weights_are_refused(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    foreign("modernbert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_model(tmp_path)
