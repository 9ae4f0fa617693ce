"""The encoder beyond parity: how it starts, and what its settings do."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from xlmtrain.config.families import PARTS, Family
from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.model.attention import RowGroup
from xlmtrain.model.block import FeedForward
from xlmtrain.model.encoder import Encoder, sinusoids
from xlmtrain.model.head import Head
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.vocab import PAD

SMALL = ModelConfig(dim=16, layers=2, heads=4, max_positions=12, dropout=0.0, attention_dropout=0.0)


def changed(**values: object) -> ModelConfig:
    return ModelConfig(**{**vars(SMALL), **values})  # type: ignore[arg-type]


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randint(14, 50, (3, 8), generator=torch.Generator().manual_seed(0))
    return tokens, torch.arange(8).expand(3, 8), torch.zeros_like(tokens)


def test_start_is_the_published_one() -> None:
    torch.manual_seed(0)
    model = LanguageModel(changed(dim=64, max_positions=512), 5000, 2)
    encoder = model.encoder
    for table in (encoder.token_embeddings, encoder.position_embeddings):
        assert table.weight.std().item() == pytest.approx(64**-0.5, rel=0.02)
    assert not encoder.token_embeddings.weight[PAD].any()
    weights = encoder.state_dict()["blocks.0.ffn.outer.weight"]  # uniform within 1 / sqrt(fan in), as torch's Linear
    assert weights.abs().max().item() == pytest.approx(256**-0.5, rel=0.01)
    assert model.head.bias.abs().max().item() == pytest.approx(64**-0.5, rel=0.01)
    assert torch.equal(encoder.embedding_norm.weight, torch.ones(64))


def test_released_model_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = LanguageModel(ModelConfig(), 64699, 2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 142_422_203


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("family", list(Family))
def test_positions_that_are_computed_alone(family: Family, causal: bool) -> None:
    """Hidden states and gradients are those of the whole, and zero at padding."""
    torch.manual_seed(0)
    encoder = Encoder(changed(family=family, local_attention=4), 50, 2, PAD)
    at, lengths, grad = torch.tensor([1, 2, 7, 9, 15, 17]), torch.tensor([8, 5, 3]), torch.randn(6, 16)
    whole = encoder(*inputs(), lengths, causal).flatten(0, 1)[at]
    alone = encoder(*inputs(), lengths, causal, at=at)
    torch.testing.assert_close(alone, whole, atol=1e-6, rtol=0)
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    found, expected = (torch.autograd.grad(states, weights, grad) for states in (alone, whole))
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_last_feed_forward_computes_the_targets_alone() -> None:
    encoder, rows = Encoder(SMALL, 50, 2, PAD), []
    for block in encoder.blocks:
        block.ffn.register_forward_hook(lambda _, __, output: rows.append(output[..., 0].numel()))
    encoder(*inputs(), at=torch.tensor([3, 20]))
    assert rows == [24, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_without_targets_gives_every_weight_a_gradient_of_zero(dtype: torch.dtype) -> None:
    encoder = Encoder(changed(dropout=0.1, attention_dropout=0.1), 50, 2, PAD)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        states = encoder(*inputs(), at=torch.tensor([], dtype=torch.int64))
    states.sum().backward()
    assert states.shape == (0, 16)
    assert all(weight.grad is not None and not weight.grad.any() for weight in encoder.parameters())


@pytest.mark.parametrize("family", list(Family)[1:])
def test_a_family_that_is_causal_sees_no_later_token(family: Family) -> None:
    """ModernBERT's local blocks, too: half of four positions on each side, but none of those that follow."""
    torch.manual_seed(0)
    encoder = Encoder(changed(family=family, layers=4, local_attention=4), 50, 2, PAD)
    tokens, positions, languages = inputs()
    later = tokens.clone()
    later[:, 5] += 1
    first, second = (encoder(one, positions, languages, causal=True) for one in (tokens, later))
    torch.testing.assert_close(first[:, :5], second[:, :5], atol=0, rtol=0)
    assert not torch.allclose(first[:, 5:], second[:, 5:])


def test_local_blocks_see_no_farther_than_their_window() -> None:
    encoder = Encoder(changed(family=Family.modernbert, layers=2, local_attention=4), 50, 2, PAD)
    x = torch.randn(1, 12, 16)
    far = x.clone()
    far[:, 8:].neg_()
    view = encoder.attention_views(torch.arange(12)[None], [RowGroup(1, 12)], causal=False)[True]
    first, second = (encoder.blocks[1](one, view) for one in (x, far))
    torch.testing.assert_close(first[:, :6], second[:, :6], atol=1e-6, rtol=0)
    assert not torch.allclose(first[:, 6], second[:, 6])


@pytest.mark.parametrize("family", [family for family in Family if PARTS[family].head_transform])
def test_the_transformation_of_the_head_begins_as_the_identity(family: Family) -> None:
    head, x = Head(changed(family=family), 50), torch.randn(3, 16)
    assert head.transform is not None
    expected = F.layer_norm(F.gelu(x), (16,), eps=changed(family=family).norm_eps)
    torch.testing.assert_close(head.transform(x), expected, atol=1e-6, rtol=0)


def test_a_token_of_roberta_has_the_position_after_that_of_padding() -> None:
    encoder = Encoder(changed(family=Family.roberta), 50, 2, PAD)
    encoder(*inputs()).sum().backward()
    used = encoder.position_embeddings.weight.grad.abs().sum(1) > 0
    assert used.nonzero().flatten().tolist() == list(range(PAD + 1, PAD + 9))


def test_sinusoids_are_the_formula() -> None:
    table = sinusoids(40, 6)
    for position in (0, 1, 39):
        for column in range(6):
            angle = position / 10000 ** (2 * (column // 2) / 6)
            expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            assert table[position, column].item() == pytest.approx(expected, abs=1e-6)


def test_sinusoidal_positions_are_used_and_not_trained() -> None:
    encoder = Encoder(changed(sinusoidal_positions=True), 50, 2, PAD)
    assert torch.equal(encoder.position_embeddings.weight, sinusoids(12, 16))
    encoder(*inputs()).sum().backward()
    assert encoder.position_embeddings.weight.grad is None
    assert encoder.token_embeddings.weight.grad is not None


def test_language_vectors_are_added_only_where_there_are_several_languages() -> None:
    tokens, positions, languages = inputs()
    torch.manual_seed(0)
    two = Encoder(SMALL, 50, 2, PAD)
    assert not torch.allclose(two(tokens, positions, languages), two(tokens, positions, languages + 1))
    for encoder in (Encoder(SMALL, 50, 1, PAD), Encoder(changed(language_embeddings=False), 50, 2, PAD)):
        assert encoder.language_embeddings is None
        assert torch.equal(encoder(tokens, positions, languages), encoder(tokens, positions, languages + 1))


def test_activation() -> None:
    torch.manual_seed(0)
    gelu = Encoder(SMALL, 50, 2, PAD)
    relu = Encoder(changed(activation=Activation.relu), 50, 2, PAD)
    relu.load_state_dict(gelu.state_dict())
    assert not torch.allclose(gelu(*inputs()), relu(*inputs()))
    x = torch.linspace(-3, 3, 7)
    exact = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))  # the tanh approximation differs by up to 5e-4
    torch.testing.assert_close(FeedForward(ModelConfig(dim=4)).activation(x), exact, atol=1e-6, rtol=0)


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    for settings in ({"dropout": 0.5}, {"attention_dropout": 0.5}):
        encoder = Encoder(changed(**settings), 50, 2, PAD)
        assert not torch.equal(encoder(*inputs()), encoder(*inputs()))
        encoder.eval()
        assert torch.equal(encoder(*inputs()), encoder(*inputs()))


def test_output_matrix_is_the_embeddings_unless_untied() -> None:
    tied, untied = LanguageModel(SMALL, 50, 2), LanguageModel(changed(tie_embeddings=False), 50, 2)
    extra = set(untied.state_dict()) - set(tied.state_dict())
    assert extra == {"head.weight"}
    assert untied.head.weight is not None
    hidden = torch.randn(5, 16)
    table = tied.encoder.token_embeddings.weight
    torch.testing.assert_close(tied.head(hidden, table), hidden @ table.T + tied.head.bias)
    torch.testing.assert_close(untied.head(hidden, table), hidden @ untied.head.weight.T + untied.head.bias)
