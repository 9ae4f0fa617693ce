"""The attention that a CPU trains with is torch's, and its gradient with dropout is that of what it computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from xlmtrain.config.model import ModelConfig
from xlmtrain.model.attention import AttentionView, SelfAttention, local_mask
from xlmtrain.model.kernels import dispatch
from xlmtrain.model.kernels.attention import cpu_attention

ROWS, LENGTH, HEADS, DIM = 4, 24, 4, 32
KINDS = ("whole", "padded", "causal", "local")


def arguments(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None, bool, torch.Tensor]:
    torch.manual_seed(0)
    qkv = torch.randn(ROWS, LENGTH, 3 * DIM).to(dtype).requires_grad_()
    lengths = torch.tensor([LENGTH, 20, 5, 1])
    # Under a causal mask the encoder needs no other: padding is on the right.
    key_mask = (torch.arange(LENGTH) < lengths[:, None])[:, None, None, :] if kind == "padded" else None
    if kind == "local":  # a mask for each query
        key_mask = local_mask(None, qkv[..., 0], 6, causal=True)
    return qkv, key_mask, kind == "causal", torch.randn(ROWS, LENGTH, DIM).to(dtype)


def torchs(qkv: torch.Tensor, key_mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
    q, k, v = qkv.view(ROWS, LENGTH, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask, is_causal=causal)
    return mixed.transpose(1, 2).reshape(ROWS, LENGTH, DIM)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.04)])
def test_without_dropout_it_is_torchs(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    qkv, key_mask, causal, grad = arguments(kind, dtype)
    mixed = cpu_attention(qkv, HEADS, key_mask, causal, 0.0)
    (found,) = torch.autograd.grad(mixed, qkv, grad)
    exact = qkv.detach().double().requires_grad_()
    expected = torchs(exact, key_mask, causal)
    (wanted,) = torch.autograd.grad(expected, exact, grad.double())
    torch.testing.assert_close(mixed.double(), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_with_dropout_is_that_of_what_is_computed(kind: str) -> None:
    qkv, key_mask, causal, grad = arguments(kind, torch.float32)

    def product(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return (cpu_attention(x, HEADS, key_mask, causal, 0.3).double() * grad).sum()

    (found,) = torch.autograd.grad(product(qkv), qkv)
    direction = torch.randn_like(qkv)
    step = 1e-2 * direction
    slope = (product(qkv.detach() + step) - product(qkv.detach() - step)).item() / 2e-2
    assert slope == pytest.approx((found * direction).sum().item(), rel=5e-3)


def test_mean_over_dropout_is_the_attention_without() -> None:
    qkv, key_mask, causal, _ = arguments("padded", torch.float32)
    with torch.no_grad():
        mean = torch.stack([cpu_attention(qkv, HEADS, key_mask, causal, 0.1) for _ in range(2000)]).mean(0)
        torch.testing.assert_close(mean, cpu_attention(qkv, HEADS, key_mask, causal, 0.0), atol=0.06, rtol=0)


def test_elsewhere_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced here: a GPU takes torch's kernel and its random numbers."""
    torch.manual_seed(0)
    layer, x = SelfAttention(ModelConfig(DIM, heads=HEADS, attention_dropout=0.3)), torch.randn(ROWS, LENGTH, DIM)
    torch.manual_seed(1)
    own = layer(x, AttentionView())
    monkeypatch.setattr(dispatch, "use_cpu_kernels", lambda _: False)
    torch.manual_seed(1)
    other = layer(x, AttentionView())
    assert not torch.equal(own, other)
    torch.manual_seed(1)
    q, k, v = layer.qkv(x).view(ROWS, LENGTH, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=0.3).transpose(1, 2).reshape(ROWS, LENGTH, DIM)
    assert torch.equal(other, layer.out(mixed))


def test_input_is_not_changed() -> None:
    for rows, length in ((1, 1), (2, 3)):  # of one row and one position, everything is a view
        qkv = torch.randn(rows, length, 3 * DIM)
        before = qkv.clone()
        cpu_attention(qkv, HEADS, None, False, 0.5)
        assert torch.equal(qkv, before)
