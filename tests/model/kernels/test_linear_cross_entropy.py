"""The loss that a CPU trains with has the value and the gradients of torch's cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from xlmtrain.config.model import ModelConfig
from xlmtrain.model.head import Head
from xlmtrain.model.kernels import dispatch, linear_cross_entropy

WORDS, DIM = 50, 16


def gradients(loss: torch.Tensor, *of: torch.Tensor) -> list[torch.Tensor]:
    return [loss.detach(), *torch.autograd.grad(2.5 * loss, of)]


@pytest.mark.parametrize("count", [0, 1, 23])
@pytest.mark.parametrize("chunk", [1, 4 * WORDS, 10**6])
def test_loss_is_the_cross_entropy(monkeypatch: pytest.MonkeyPatch, count: int, chunk: int) -> None:
    monkeypatch.setattr(linear_cross_entropy, "_CHUNK", chunk)
    torch.manual_seed(0)
    layer = Head(ModelConfig(dim=DIM, tie_embeddings=False), WORDS)
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
    layer = Head(ModelConfig(dim=DIM, tie_embeddings=False), WORDS)
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
    layer = Head(ModelConfig(dim=DIM, tie_embeddings=False), WORDS)
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


@pytest.mark.parametrize("cpu", [True, False])
def test_matrix_products_have_few_sizes(monkeypatch: pytest.MonkeyPatch, cpu: bool) -> None:
    """However many targets there are: each size costs memory."""
    rows = []

    def record(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return product(x, *others)

    product = F.linear
    monkeypatch.setattr(F, "linear", record)
    monkeypatch.setattr(dispatch, "use_cpu_kernels", lambda _: cpu)
    layer = Head(ModelConfig(dim=DIM), WORDS)
    for count in range(1, 65):
        hidden = torch.randn(count, DIM, requires_grad=True)
        layer(hidden, torch.randn(WORDS, DIM), torch.zeros(count, dtype=torch.int64)).backward()
    assert set(rows) == {16, 32, 48, 64}
