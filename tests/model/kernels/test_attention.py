"""The attention that a CPU trains with is torch's, and its gradient with dropout is that of what it computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from xlmtrain.config.model import ModelConfig
from xlmtrain.model.attention import AttentionView, RowGroup, SelfAttention, local_mask
from xlmtrain.model.kernels import dispatch
from xlmtrain.model.kernels.attention import cpu_attention

ROWS, LENGTH, HEADS, DIM = 4, 24, 4, 32
KINDS = ("whole", "padded", "causal", "local", "source", "padded source", "short source")
Inputs = tuple[torch.Tensor, ...]


def arguments(kind: str, dtype: torch.dtype) -> tuple[Inputs, torch.Tensor | None, bool, torch.Tensor]:
    """Return the joint projection, or fewer queries and keys and values; then mask, causal, gradient."""
    torch.manual_seed(0)
    joint = torch.randn(ROWS, LENGTH, 3 * DIM).to(dtype)
    lengths = torch.tensor([LENGTH, 20, 5, 1])
    # Under a causal mask the encoder needs no other: padding is on the right.
    key_mask = (torch.arange(LENGTH) < lengths[:, None])[:, None, None, :] if "padded" in kind else None
    if kind == "local":  # a mask for each query
        key_mask = local_mask(RowGroup(ROWS, LENGTH), 6, True, joint.device)
    inputs = [joint[:, : LENGTH // 2, :DIM], joint[..., DIM:]] if "source" in kind else [joint]
    if kind == "short source":
        inputs = [joint[..., :DIM], joint[:, :5, DIM:]]
    grad = torch.randn(ROWS, inputs[0].shape[1], DIM).to(dtype)
    return tuple(x.clone().requires_grad_() for x in inputs), key_mask, kind == "causal", grad


def of_cpu(inputs: Inputs, key_mask: torch.Tensor | None, causal: bool, dropout: float) -> torch.Tensor:
    query, key_value = inputs if len(inputs) == 2 else (*inputs, None)
    return cpu_attention(query, key_value, HEADS, key_mask, causal, dropout)


def torchs(inputs: Inputs, key_mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
    q, k, v = (x.unflatten(1, (HEADS, -1)).mT for joint in inputs for x in joint.mT.split(DIM, dim=1))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask, is_causal=causal)
    return mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.04)])
def test_without_dropout_it_is_torchs(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs, key_mask, causal, grad = arguments(kind, dtype)
    mixed = of_cpu(inputs, key_mask, causal, 0.0)
    found = torch.autograd.grad(mixed, inputs, grad)
    exact = tuple(x.detach().double().requires_grad_() for x in inputs)
    expected = torchs(exact, key_mask, causal)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    torch.testing.assert_close(mixed.double(), expected, atol=tolerance, rtol=0)
    for some, other in zip(found, wanted):
        torch.testing.assert_close(some.double(), other, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_with_dropout_is_that_of_what_is_computed(kind: str) -> None:
    inputs, key_mask, causal, grad = arguments(kind, torch.float32)

    def product(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return (of_cpu(inputs, key_mask, causal, 0.3).double() * grad).sum()

    found = torch.autograd.grad(product(*inputs), inputs)
    directions = [torch.randn_like(x) for x in inputs]
    ahead, back = (
        product(*(x.detach() + step * d for x, d in zip(inputs, directions))).item() for step in (1e-2, -1e-2)
    )
    expected = sum((some * d).sum().item() for some, d in zip(found, directions))
    assert (ahead - back) / 2e-2 == pytest.approx(expected, rel=5e-3)


def test_mean_over_dropout_is_the_attention_without() -> None:
    inputs, key_mask, causal, _ = arguments("padded", torch.float32)
    with torch.no_grad():
        mean = torch.stack([of_cpu(inputs, key_mask, causal, 0.1) for _ in range(2000)]).mean(0)
        torch.testing.assert_close(mean, of_cpu(inputs, key_mask, causal, 0.0), atol=0.06, rtol=0)


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
        for given in ((qkv,), (qkv[..., :DIM].contiguous(), qkv[..., DIM:].contiguous())):
            before = [x.clone() for x in given]
            of_cpu(given, None, False, 0.5)
            assert all(map(torch.equal, given, before))


def test_no_rows() -> None:
    qkv = torch.zeros(0, LENGTH, 3 * DIM, requires_grad=True)
    mixed = of_cpu((qkv,), None, True, 0.5)
    assert mixed.shape == (0, LENGTH, DIM)
    mixed.sum().backward()
