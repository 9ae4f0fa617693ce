"""The encoder-decoder computes what the original's did: every state, logit, loss and gradient, in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.translation import LAYERS, batch_of, original_names, reference_model, small_model
from xlmtrain.config.model import ModelConfig
from xlmtrain.data.batch import make_seq2seq_batch
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import TranslationModel, initialize_from

TOLERANCE = 2e-5
CASES = ("mt_de_en", "mt_en_de", "ae_de", "one_token")


@pytest.fixture(scope="module")
def model(translation: dict[str, Any]) -> TranslationModel:
    return reference_model(translation)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def inner_states(model: TranslationModel, case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What comes out of every part on the way, under the reference's names, (B, T, D)."""
    names = {"attention": "attention", "after_norm1": "attention_norm", "ffn": "ffn", "after_norm2": "ffn_norm"}
    across = {"source_attention": "cross_attention", "after_norm15": "cross_attention_norm"}
    parts: dict[str, nn.Module] = {}
    for side, found in (("encoder", names), ("decoder", names | across)):
        stack = model.get_submodule(side)
        parts[f"{side}.after_embedding_norm"] = stack.get_submodule("embedding_norm")
        for number in range(LAYERS):
            for theirs, ours in found.items():
                parts[f"{side}.{theirs}.{number}"] = stack.get_submodule(f"blocks.{number}.{ours}")
    states: dict[str, torch.Tensor] = {"encoder": torch.empty(0), "decoder": torch.empty(0)}
    parts |= {side: model.get_submodule(side) for side in states}
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: states.update({name: output.detach()}))
        for name, part in parts.items()
    ]
    model(batch_of(case))
    for hook in hooks:
        hook.remove()
    return states


@pytest.mark.parametrize("name", CASES)
def test_states_logits_and_loss_are_the_originals(
    translation: dict[str, Any], model: TranslationModel, name: str
) -> None:
    case = translation["cases"][name]
    states = inner_states(model, case)
    close(states.pop("encoder").transpose(0, 1), case["encoder_output"])
    close(states.pop("decoder").transpose(0, 1), case["decoder_output"])
    for key, expected in case.get("inner", {}).items():
        close(states[key], expected)
    batch = batch_of(case)
    by_sentence = torch.full(case["pred_mask"].shape, -1)
    by_sentence[case["pred_mask"]] = torch.arange(len(case["y"]))
    order = by_sentence.T[by_sentence.T >= 0]  # the original's targets are time first
    assert torch.equal(batch.targets, case["y"][order])
    close(model.logits(batch), case["logits"][order])
    assert model(batch).item() / len(batch.targets) == pytest.approx(case["loss"], abs=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_originals(translation: dict[str, Any], model: TranslationModel, name: str) -> None:
    case, batch = translation["cases"][name], batch_of(translation["cases"][name])
    model.zero_grad()
    (model(batch) / len(batch.targets)).backward()
    assert not model.head.bias.grad.any()  # the encoder's output layer takes no part
    assert case["no_gradient"] == ["encoder.pred_layer.proj.bias"]
    found = original_names({n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()})
    model.zero_grad()
    for key, norm in case["grad_norms"].items():
        assert found[key].norm().item() == pytest.approx(norm, abs=TOLERANCE), key
    for key, expected in case.get("grad", {}).items():  # one case has norms alone
        close(found[key][: len(expected)], expected)


def test_full_size_has_the_originals_number_of_parameters() -> None:
    with torch.device("meta"):
        model = TranslationModel(ModelConfig(), 64_699, 2)
        tied = TranslationModel(ModelConfig(), 64_699, 2, share_embeddings=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 310_047_094
    assert sum(parameter.numel() for parameter in tied.parameters()) == 310_047_094 - 64_699 * 1024


def test_names_shapes_and_initial_statistics_are_the_originals(translation: dict[str, Any]) -> None:
    torch.manual_seed(0)
    found = original_names(small_model().state_dict())
    expected = dict(zip(translation["parameters"]["names"], translation["parameters"]["shapes"], strict=True))
    tied = {f"{side}.pred_layer.proj.weight" for side in ("encoder", "decoder")}
    assert {name: list(value.shape) for name, value in found.items() if name not in tied} == expected
    for name, (mean, deviation, least, largest) in translation["init_stats"].items():
        value = found[name]
        if deviation == 0:
            assert torch.all(value == mean), name
        else:
            error = deviation / value.numel() ** 0.5
            assert abs(value.mean().item() - mean) < 6 * error, name
            assert value.std().item() == pytest.approx(deviation, rel=6 / (2 * value.numel()) ** 0.5), name
            assert value.abs().max().item() == pytest.approx(max(-least, largest), rel=0.6), name


def sentences(seed: int, count: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [torch.cat([torch.randint(14, 200, (n,), generator=generator), torch.tensor([1])]) for n in lengths]


def small_batch() -> Any:
    source, target = ([s.numpy() for s in sentences(seed)] for seed in (1, 2))
    return make_seq2seq_batch("mt", sentence_sequences(source, 0), sentence_sequences(target, 1))


def test_the_target_does_not_see_its_future_nor_the_padding_of_its_source() -> None:
    torch.manual_seed(0)
    model, batch = small_model().eval(), small_batch()
    before = model.logits(batch)
    last = batch.lengths - 1
    batch.tokens[torch.arange(5), last] = 99  # read by the last position only, which predicts nothing
    padding = torch.arange(batch.source.tokens.shape[1]) >= batch.source.lengths[:, None]
    assert padding.any()
    batch.source.tokens[padding] = 77
    torch.testing.assert_close(model.logits(batch), before, atol=1e-6, rtol=0)
    batch.source.tokens[:, 1] = 77
    assert not torch.allclose(model.logits(batch), before, atol=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_label_smoothing_is_torchs_and_for_training_only(half: bool) -> None:
    torch.manual_seed(0)
    model, batch = small_model(label_smoothing=0.1), small_batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = model(batch)
        logits = model.logits(batch)
    expected = nn.functional.cross_entropy(logits, batch.targets, reduction="sum", label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2 if half else 1e-6)
    parameters = [p for n, p in model.named_parameters() if n != "head.bias"]
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    wanted = torch.autograd.grad(expected, parameters)
    largest = max(g.norm().item() for g in wanted)
    for a, b in zip(found, wanted):
        assert (a - b).norm().item() <= (0.03 * b.norm().item() + 0.01 * largest if half else 1e-5 * largest)
    model.eval()
    plain = nn.functional.cross_entropy(model.logits(batch), batch.targets, reduction="sum")
    assert model(batch).item() == pytest.approx(plain.item(), rel=1e-6)


def test_a_tied_token_table_gets_the_gradients_of_all_its_uses() -> None:
    torch.manual_seed(0)
    tied, untied, batch = small_model(share_embeddings=True), small_model(), small_batch()
    weights = tied.state_dict()
    assert "decoder.token_embeddings.weight" not in weights
    untied.load_state_dict({**weights, "decoder.token_embeddings.weight": weights["encoder.token_embeddings.weight"]})
    tied(batch).backward()
    untied(batch).backward()
    assert untied.encoder.token_embeddings.weight.grad is not None
    total = untied.encoder.token_embeddings.weight.grad + untied.decoder.token_embeddings.weight.grad
    assert tied.encoder.token_embeddings.weight.grad is not None
    close(tied.encoder.token_embeddings.weight.grad, total)


def test_batches_without_a_source_are_a_language_models() -> None:
    torch.manual_seed(0)
    model, batch = small_model().eval(), small_batch()
    batch.source = None
    alone = LanguageModel(model.config, 200, 2)
    alone.load_state_dict({name: value for name, value in model.state_dict().items() if "decoder" not in name})
    assert torch.equal(model(batch), alone(batch))
    assert torch.equal(model.logits(batch), alone.logits(batch))


@pytest.mark.parametrize("sides", ["both", "encoder", "decoder"])
@pytest.mark.parametrize("share_embeddings", [False, True])
def test_a_start_from_language_models_leaves_the_originals_weights_random(
    translation: dict[str, Any], sides: str, share_embeddings: bool
) -> None:
    model = small_model(share_embeddings=share_embeddings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    source = LanguageModel(model.config, 200, 2).state_dict()
    encoder, decoder = (source if sides in (side, "both") else {} for side in ("encoder", "decoder"))
    random = set(initialize_from(model, encoder, decoder))
    after = model.state_dict()
    assert {name for name, value in after.items() if torch.equal(value, before[name])} - random == {
        name for name in after if "norm" in name and name not in random
    }
    assert all(torch.equal(after[name], before[name]) for name in random)
    if sides == "both" and not share_embeddings:
        marked = {name: torch.full_like(value, float(name in random)) for name, value in after.items()}
        new = {name for name, value in original_names(marked).items() if value.any()}
        assert new == {f"decoder.{name}" for name in translation["reload"]["decoder_new"]}
        assert torch.equal(after["decoder_head.bias"], source["head.bias"])
