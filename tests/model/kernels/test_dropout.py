"""Dropout on a CPU: the right rate, the right mean, no pattern, the same for the same seed; elsewhere torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from xlmtrain.model.kernels import dispatch
from xlmtrain.model.kernels.dropout import Dropout, drop_mask, quantized_rate

DTYPES = (torch.float32, torch.bfloat16)
DRAWS = 1 << 22


def drops(p: float, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(DRAWS,) float64, 1 where dropped."""
    torch.manual_seed(seed)
    return drop_mask(torch.empty(DRAWS, dtype=dtype), p).double()


@pytest.mark.parametrize("p", [0.01, 0.05, 0.1, 0.3, 0.5, 0.9])
def test_rate_is_the_stated_one(p: float) -> None:
    assert abs(quantized_rate(p) - p) <= 0.001 * p
    for dtype in DTYPES:
        found = drops(p, 0, dtype)
        assert set(found.unique().tolist()) == {0.0, 1.0}
        error = math.sqrt(p * (1 - p) / DRAWS)
        assert abs(found.mean().item() - p) < 4 * error
        lanes = found.view(-1, 4).mean(0)  # the four draws from one random word
        assert (lanes - p).abs().max().item() < 4.5 * 2 * error


def test_draws_are_independent() -> None:
    """Of their neighbours, of the other lanes of their word, of the row before, of the draw before."""
    p = 0.1
    found = (drops(p, 1) - p) / math.sqrt(p * (1 - p))
    for lag in (1, 2, 3, 4, 5, 8, 64, 128, 256, 624, 1024, 16384):  # 624 words are the generator's state
        correlation = (found[lag:] * found[:-lag]).mean().item()
        assert abs(correlation) < 4.5 / math.sqrt(DRAWS), lag
    torch.manual_seed(1)
    drop_mask(torch.empty(DRAWS), p)
    following = (drop_mask(torch.empty(DRAWS), p).double() - p) / math.sqrt(p * (1 - p))
    assert abs((found * following).mean().item()) < 4.5 / math.sqrt(DRAWS)
    counts = drops(p, 2).view(-1, 64).sum(1)  # of 64 in a row: a binomial's mean and variance
    assert counts.var().item() == pytest.approx(64 * p * (1 - p), rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_and_gradients_are_zero_or_scaled_together(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 33, 5).to(dtype).requires_grad_()  # no multiple of the four draws of a word
    y = Dropout(0.25)(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    kept = grad != 0
    assert 0.2 < 1 - kept.float().mean().item() < 0.3
    scale = torch.tensor(1 / 0.75)
    torch.testing.assert_close(y, torch.where(kept, x.float() * scale, 0.0).to(dtype), atol=0, rtol=0.005)
    torch.testing.assert_close(grad, torch.where(kept, scale, 0.0).to(dtype), atol=0, rtol=0.005)


def test_mean_stays() -> None:
    torch.manual_seed(0)
    x = torch.ones(DRAWS)
    error = math.sqrt(0.1 / 0.9 / DRAWS)
    assert abs(Dropout(0.1)(x).double().mean().item() - 1) < 4 * error


def test_seed_decides() -> None:
    assert torch.equal(drops(0.1, 5), drops(0.1, 5))
    both = (drops(0.1, 5) * drops(0.1, 6)).mean().item()
    assert both == pytest.approx(0.01, rel=0.02)


def test_input_is_not_changed_and_nothing_is_dropped_outside_training() -> None:
    x = torch.ones(100)
    layer = Dropout(0.5)
    assert not torch.equal(layer(x), x)
    assert torch.equal(x, torch.ones(100))
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_transposed_input() -> None:
    x = torch.randn(8, 6).t()
    y = Dropout(0.5)(x)
    assert torch.equal(y[y != 0], x[y != 0] * 2)


def test_elsewhere_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced here: a GPU takes torch's kernel and its random numbers."""
    x = torch.randn(50, 7)
    torch.manual_seed(0)
    expected = F.dropout(x, 0.3)
    monkeypatch.setattr(dispatch, "use_cpu_kernels", lambda _: False)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.3)(x), expected)
    monkeypatch.undo()
    assert not dispatch.use_cpu_kernels(torch.empty(1, device="meta"))
    assert not dispatch.use_cpu_kernels(torch.empty(1, dtype=torch.float64))
