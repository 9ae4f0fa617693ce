"""Rotary positions on a CPU have the values and gradients of torch's operations; distances alone matter."""

from __future__ import annotations

import pytest
import torch

from xlmtrain.model.attention import rotary_positions
from xlmtrain.model.kernels.rotary import reference_rotate, rotate

ROWS, LENGTH, HEADS, SIZE = 2, 7, 3, 8


def inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    qkv = torch.randn(ROWS, LENGTH, 3 * HEADS * SIZE, dtype=dtype, requires_grad=True)
    positions = torch.stack([torch.arange(LENGTH), torch.arange(LENGTH) + 40])
    return qkv, rotary_positions(positions, SIZE, 10000.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.04)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_values_and_gradients_are_those_of_the_reference(
    dtype: torch.dtype, tolerance: float, contiguous: bool
) -> None:
    qkv, rotation = inputs(dtype)
    to_result = torch.randn(ROWS, qkv.shape[2], LENGTH).to(dtype).mT
    to_result = to_result.contiguous() if contiguous else to_result
    found, expected = rotate(qkv, HEADS, rotation), reference_rotate(qkv, HEADS, rotation)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert torch.equal(found[..., 2 * HEADS * SIZE :], qkv[..., 2 * HEADS * SIZE :])  # values are not turned
    gradients = [torch.autograd.grad((x * to_result).sum(), qkv)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, atol=tolerance, rtol=0)


def test_gradients_of_gradients_are_those_of_the_reference() -> None:
    qkv, rotation = inputs(torch.float32)
    found = []
    for turn in (rotate, reference_rotate):
        to_result = torch.randn(qkv.shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
        (first,) = torch.autograd.grad((turn(qkv, HEADS, rotation) * to_result).sum(), qkv, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), to_result)[0])
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_products_of_queries_and_keys_depend_on_distances_alone() -> None:
    qkv, rotation = inputs(torch.float32)
    same = qkv[:1].detach().expand(ROWS, -1, -1)  # one row at two places
    q, k, _ = rotate(same, HEADS, rotation).unflatten(2, (3, HEADS, SIZE)).unbind(2)
    near, far = torch.einsum("bqhk,bshk->bhqs", q, k)
    torch.testing.assert_close(near, far, atol=1e-4, rtol=0)
    plain = torch.einsum("qhk,shk->hqs", *qkv[0].detach().unflatten(1, (3, HEADS, SIZE)).unbind(1)[:2])
    assert (near - plain).abs().max() > 0.1
