"""The model computes what the original code computed: every state, logit, loss and gradient, in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.fixtures.make_oracle import KEPT_OF_A_GRADIENT, spaced
from tests.support.oracle import Oracle, as_batch
from xlmtrain.config.model import ModelConfig
from xlmtrain.data.batch import Batch
from xlmtrain.interop.xlm.conversion import from_xlm_state_dict, to_xlm_state_dict
from xlmtrain.model.language_model import LanguageModel

CASES = ("mlm_stream", "mlm_padded", "tlm", "clm_stream")
TOLERANCE = 2e-5


def build(state: dict[str, torch.Tensor]) -> LanguageModel:
    """The oracle's tiny model: 2 layers of 64, 200 words, 2 languages."""
    positions = len(state["position_embeddings.weight"])
    config = ModelConfig(dim=64, layers=2, heads=4, max_positions=positions, dropout=0.0, attention_dropout=0.0)
    model = LanguageModel(config, 200, 2)
    model.load_state_dict(from_xlm_state_dict(state))
    return model


def inner_states(model: LanguageModel, batch: Batch) -> dict[str, torch.Tensor]:
    """What comes out of every part on the way, under the oracle's names, (B, T, D)."""
    parts: dict[str, nn.Module] = {"after_embedding_norm": model.encoder.embedding_norm}
    names = {"attention": "attention", "after_norm1": "attention_norm", "ffn": "ffn", "after_norm2": "ffn_norm"}
    for number, block in enumerate(model.encoder.blocks):
        parts |= {f"{theirs}.{number}": block.get_submodule(ours) for theirs, ours in names.items()}
    states: dict[str, torch.Tensor] = {}
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: states.update({name: output.detach()}))
        for name, part in parts.items()
    ]
    model.encoder(batch.tokens, batch.positions, batch.languages, batch.lengths, batch.causal)
    for hook in hooks:
        hook.remove()
    return states


def gradients(model: LanguageModel, batch: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (model(batch) / len(batch.targets)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def split_qkv(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the oracle's names, which has one matrix each for queries, keys and values."""
    names = to_xlm_state_dict(gradients)
    names.pop("pred_layer.proj.weight")
    return names


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> LanguageModel:
    return build(oracle.group("state_dict."))


@pytest.mark.parametrize("name", CASES)
def test_hidden_states_logits_and_loss(oracle: Oracle, model: LanguageModel, name: str) -> None:
    case = oracle.group(f"cases.{name}.")
    batch = as_batch(case, causal=name == "clm_stream")

    hidden = model.encoder(batch.tokens, batch.positions, batch.languages, batch.lengths, batch.causal)
    print(f"{name}: largest difference of a hidden state {(hidden.transpose(0, 1) - case['hidden']).abs().max():.1e}")
    torch.testing.assert_close(hidden.transpose(0, 1), case["hidden"], atol=TOLERANCE, rtol=0)
    print(f"{name}: largest difference of a logit {(model.logits(batch) - case['logits']).abs().max():.1e}")
    torch.testing.assert_close(model.logits(batch), case["logits"], atol=TOLERANCE, rtol=0)
    assert model(batch).item() / len(batch.targets) == pytest.approx(oracle.numbers["losses"][name], abs=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_inner_states(oracle: Oracle, model: LanguageModel, name: str) -> None:
    case = oracle.group(f"cases.{name}.")
    batch = as_batch(case, causal=name == "clm_stream")
    states = inner_states(model, batch)
    expected = {key.removeprefix("inner."): value for key, value in case.items() if key.startswith("inner.")}
    assert states.keys() == expected.keys()
    for key, state in states.items():
        torch.testing.assert_close(spaced(state, 512), expected[key], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_gradients(oracle: Oracle, model: LanguageModel, name: str) -> None:
    case = oracle.group(f"cases.{name}.")
    found = split_qkv(gradients(model, as_batch(case, causal=name == "clm_stream")))
    assert {f"grad.{key}" for key in found} == {key for key in case if key.startswith("grad.")}
    for key, gradient in found.items():
        norm = case[f"grad_norm.{key}"].item()
        assert gradient.norm().item() == pytest.approx(norm, abs=TOLERANCE), key
        if key != "position_embeddings.weight":  # its table was cut, so other elements are evenly spaced
            expected = case[f"grad.{key}"]
            torch.testing.assert_close(spaced(gradient, KEPT_OF_A_GRADIENT), expected, atol=TOLERANCE, rtol=0)
    total = torch.stack([gradient.norm() for gradient in found.values()]).norm().item()
    assert total == pytest.approx(oracle.numbers["grad_norms"][name], abs=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_everything_of_the_full_reference(reference: dict[str, Any], name: str) -> None:
    """All elements of all gradients and inner states, which the committed fixture has samples of."""
    model = build(reference["state_dict"])
    case = reference["cases"][name]
    batch = as_batch(case, case["causal"])
    for key, state in inner_states(model, batch).items():
        torch.testing.assert_close(state, case["inner"][key], atol=TOLERANCE, rtol=0)
    found = split_qkv(gradients(model, batch))
    assert found.keys() == case["grad"].keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, case["grad"][key], atol=TOLERANCE, rtol=0)


def test_hidden_states_do_not_depend_on_what_stands_in_the_padding(oracle: Oracle, model: LanguageModel) -> None:
    case = oracle.group("cases.mlm_padded.")
    batch = as_batch(case, causal=False)
    assert batch.lengths is not None
    padding = torch.arange(batch.tokens.shape[1]) >= batch.lengths[:, None]
    assert padding.any()
    other = torch.where(padding, 77, batch.tokens)
    for causal in (False, True):
        a = model.encoder(batch.tokens, batch.positions, batch.languages, batch.lengths, causal)
        b = model.encoder(other, batch.positions, batch.languages, batch.lengths, causal)
        assert torch.equal(a, b)
        assert torch.equal(a[padding], torch.zeros_like(a[padding]))


def test_a_causal_position_does_not_see_what_follows(oracle: Oracle, model: LanguageModel) -> None:
    batch = as_batch(oracle.group("cases.clm_stream."), causal=True)
    changed = batch.tokens.clone()
    changed[:, 9:] = 33
    a = model.encoder(batch.tokens, batch.positions, batch.languages, None, True)
    b = model.encoder(changed, batch.positions, batch.languages, None, True)
    torch.testing.assert_close(a[:, :9], b[:, :9], atol=1e-6, rtol=0)
    assert not torch.allclose(a[:, 9:], b[:, 9:], atol=1e-2)
