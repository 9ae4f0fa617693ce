"""Loss and look-up as a CPU trains with them have the values and gradients of torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.config.schema import ModelConfig
from xlmtrain.data.batch import Batch
from xlmtrain.model import head
from xlmtrain.model.embedding import look_up
from xlmtrain.model.head import Head
from xlmtrain.objective import LanguageModel
from xlmtrain.text.vocab import PAD

WORDS, DIM = 50, 16


def gradients(loss: torch.Tensor, *of: torch.Tensor) -> list[torch.Tensor]:
    return [loss.detach(), *torch.autograd.grad(2.5 * loss, of)]


@pytest.mark.parametrize("count", [0, 1, 23])
@pytest.mark.parametrize("at_once", [1, 4 * WORDS, 10**6])
def test_loss_is_the_cross_entropy(monkeypatch: pytest.MonkeyPatch, count: int, at_once: int) -> None:
    monkeypatch.setattr(head, "_AT_ONCE", at_once)
    torch.manual_seed(0)
    layer = Head(DIM, WORDS, tied=False)
    assert layer.weight is not None
    hidden = torch.randn(count, DIM, requires_grad=True)
    targets = torch.randint(WORDS, (count,))
    of = (hidden, layer.weight, layer.bias)
    found = gradients(layer(hidden, hidden, targets), *of)
    expected = gradients(F.cross_entropy(layer(hidden, hidden), targets, reduction="sum"), *of)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6)


def test_loss_in_bf16_is_the_cross_entropy_but_for_rounding() -> None:
    torch.manual_seed(0)
    layer = Head(DIM, WORDS, tied=False)
    assert layer.weight is not None
    hidden, targets = torch.randn(400, DIM, requires_grad=True), torch.randint(WORDS, (400,))
    of = (hidden, layer.weight, layer.bias)
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer(hidden, hidden, targets)
        torchs = F.cross_entropy(layer(hidden, hidden).float(), targets, reduction="sum")
    assert loss.dtype == torch.float32
    found, inexact = gradients(loss, *of), gradients(torchs, *of)
    exact = gradients(F.cross_entropy(layer(hidden, hidden), targets, reduction="sum"), *of)
    for a, b, c in zip(found, inexact, exact, strict=True):
        assert a.dtype == c.dtype
        assert (a - c).norm() <= 1.1 * (b - c).norm() + 1e-6 * c.norm()  # no less exact than torch's
        assert (a - c).norm() < 0.02 * c.norm()


def test_gradients_that_are_kept_stay_as_they_are() -> None:
    torch.manual_seed(0)
    layer = Head(DIM, WORDS, tied=False)
    assert layer.weight is not None
    targets = torch.randint(WORDS, (5,))

    def gradient(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            loss = layer(hidden, hidden, targets)
        return torch.autograd.grad(loss, layer.weight)[0]

    first = gradient(torch.randn(5, DIM))
    before = first.clone()
    gradient(torch.randn(5, DIM))
    assert torch.equal(first, before)


@pytest.mark.parametrize("own", [True, False])
def test_matrix_products_have_few_sizes(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """However many targets there are: each size costs memory."""
    rows = []

    def record(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return product(x, *others)

    product = F.linear
    monkeypatch.setattr(F, "linear", record)
    monkeypatch.setattr(head, "has_own_kernel", lambda _: own)
    layer = Head(DIM, WORDS, tied=True)
    for count in range(1, 65):
        hidden = torch.randn(count, DIM, requires_grad=True)
        layer(hidden, torch.randn(WORDS, DIM), torch.zeros(count, dtype=torch.int64)).backward()
    assert set(rows) == {16, 32, 48, 64}


def test_look_up_has_the_gradient_of_an_embedding() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(WORDS, DIM, padding_idx=PAD)
    tokens = torch.randint(WORDS, (4, 20))
    tokens[0, :5] = PAD
    tokens[1] = 7  # a word again and again
    to_vectors, to_matrix = torch.randn(4, 20, DIM), torch.randn(WORDS, DIM)
    vectors, matrix = look_up(table, tokens)
    assert torch.equal(vectors, table(tokens))
    (found,) = torch.autograd.grad((vectors * to_vectors).sum() + (matrix * to_matrix).sum(), table.weight)
    (expected,) = torch.autograd.grad(
        (table(tokens) * to_vectors).sum() + (table.weight * to_matrix).sum(), table.weight
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    vectors, _ = look_up(table, tokens)
    (found,) = torch.autograd.grad((vectors * to_vectors).sum(), table.weight)  # the matrix not used
    torch.testing.assert_close(found, expected - to_matrix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_add_up_over_batches(tied: bool) -> None:
    torch.manual_seed(0)
    config = ModelConfig(dim=DIM, layers=1, heads=2, max_positions=8, dropout=0.0, tie_embeddings=tied)
    model = LanguageModel(config, WORDS, 2)
    tokens = torch.randint(14, WORDS, (3, 8))
    batch = Batch("mlm", tokens, torch.arange(8).expand(3, 8), 0 * tokens, None, torch.tensor([1, 9]), tokens[0, :2])
    model.eval()
    model(batch).backward()
    once = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model(batch).backward()
    F.cross_entropy(model.logits(batch), batch.targets, reduction="sum").backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 3 * once[name], atol=1e-5, rtol=1e-5)
