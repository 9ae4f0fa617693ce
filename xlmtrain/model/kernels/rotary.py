"""Rotary positions: queries and keys turned by their positions.

Reference: both halves of every head times cosines and sines, put together again, in eight operations and more in the
backward pass. The CPU version has one copy and four products in each, with cosines and sines in the dtype of the
queries; so in bf16 it differs by a rounding.

Letters: B rows, T positions, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch

from xlmtrain.model.kernels import dispatch


def rotate(qkv: torch.Tensor, heads: int, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate queries and keys by their positions (RoPE, Su et al. 2021): components i and i + K / 2 by one angle.

    ``qkv``: (B, T, 3 D), also of the result. ``rotation``: cosines and sines, (2, B, T, 1, 1, K / 2).
    """
    if dispatch.use_cpu_kernels(qkv):
        return _CpuRotation.apply(qkv, heads, rotation)
    return reference_rotate(qkv, heads, rotation)


def reference_rotate(qkv: torch.Tensor, heads: int, rotation: torch.Tensor) -> torch.Tensor:
    """Return the same, by torch's operations in fp32."""
    cos, sin = rotation
    parts = qkv.unflatten(2, (3, heads, -1))
    first, second = parts[:, :, :2].chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(qkv.dtype), parts[:, :, 2:]], dim=2).flatten(2)


class _CpuRotation(torch.autograd.Function):
    """A rotation; its gradient is turned back by the same angles."""

    @staticmethod
    def forward(ctx, qkv: torch.Tensor, heads: int, rotation: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        cos, sin = rotation.to(qkv.dtype)
        ctx.save_for_backward(cos, sin)
        ctx.heads = heads
        result = qkv.clone(memory_format=torch.contiguous_format)
        first, second = qkv.unflatten(2, (3, heads, -1))[:, :, :2].chunk(2, dim=-1)
        new_first, new_second = result.unflatten(2, (3, heads, -1))[:, :, :2].chunk(2, dim=-1)
        new_first.mul_(cos).addcmul_(second, sin, value=-1)
        new_second.mul_(cos).addcmul_(first, sin)
        return result

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[no-untyped-def]
        cos, sin = ctx.saved_tensors
        return _CpuRotation.apply(grad, ctx.heads, torch.stack([cos, -sin])), None, None
