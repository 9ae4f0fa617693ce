"""Multi-head attention, from the joint projection of queries, keys and values to the mixed values.

Reference: torch's ``scaled_dot_product_attention``, head by head. On CPUs torch has no fused kernel with dropout: it
composes one from operations in fp32, whatever the dtype. Its kernel without dropout is slow in bf16.

Limits of the CPU version: one (T, T) matrix per head is stored for the backward pass. It is used with dropout or in
bf16, where it is faster. A position that may attend to no key attends to all of them. ``causal`` ignores ``key_mask``.

Letters: B rows, T positions, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from xlmtrain.model.kernels import dispatch
from xlmtrain.model.kernels.dropout import drop_mask, quantized_rate


def attention(
    qkv: torch.Tensor, heads: int, key_mask: torch.Tensor | None, causal: bool, dropout: float
) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(K)) v of all heads, (B, T, 3 D) -> (B, T, D).

    ``qkv``: queries, then keys, then values. ``key_mask``: (B, 1, 1, T) bool, keys that may be attended to, or None for
    all. ``causal``: a position attends to itself and the positions before it. ``dropout``: rate on the weights.
    """
    if dispatch.use_cpu_kernels(qkv) and (dropout or qkv.dtype is torch.bfloat16):
        return cpu_attention(qkv, heads, key_mask, causal, dropout)
    return reference_attention(qkv, heads, key_mask, causal, dropout)


def reference_attention(
    qkv: torch.Tensor, heads: int, key_mask: torch.Tensor | None, causal: bool, dropout: float
) -> torch.Tensor:
    """Return the same, by torch's kernel."""
    rows, length, width = qkv.shape
    q, k, v = qkv.view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask, dropout_p=dropout, is_causal=causal)
    return mixed.transpose(1, 2).reshape(rows, length, width // 3)


def cpu_attention(
    qkv: torch.Tensor, heads: int, key_mask: torch.Tensor | None, causal: bool, dropout: float
) -> torch.Tensor:
    """Return the same, by batched matrix products in the dtype of ``qkv``."""
    hidden = None if key_mask is None else ~key_mask
    if causal:
        length = qkv.shape[1]
        hidden = torch.ones(length, length, dtype=torch.bool, device=qkv.device).triu_(1)
    return _CpuAttention.apply(qkv, heads, hidden, dropout)


class _CpuAttention(torch.autograd.Function):
    """Attention with one stored (T, T) matrix per head.

    The attention weights are positive, so their sign bit is free: it is set where dropout removed the weight. One
    matrix is then both the weights (its absolute value) and the dropout mask (its sign).
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, qkv: torch.Tensor, heads: int, hidden: torch.Tensor | None, dropout: float
    ) -> torch.Tensor:
        rows, length, width = qkv.shape
        q, k, v = qkv.view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2)  # (B H, T, K)
        q = q * q.shape[-1] ** -0.5
        scores = torch.bmm(q, k.mT)
        if hidden is not None:
            scores.view(rows, heads, length, length).masked_fill_(hidden, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1, out=scores)
        if dropout:
            dropped = drop_mask(weights, dropout)
            dropped.bitwise_left_shift_(8 * weights.element_size() - 1)  # to the place of the sign bit
            weights.view(dropped.dtype).bitwise_or_(dropped)
        ctx.scale = 1.0 / (1.0 - quantized_rate(dropout))
        mixed = torch.bmm(weights.clamp_min(0.0), v).view(rows, heads, length, -1).transpose(1, 2)
        mixed = mixed.reshape(rows, length, width // 3) * ctx.scale
        ctx.save_for_backward(q, k, v, weights, mixed)
        return mixed

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # type: ignore[no-untyped-def]
        q, k, v, weights, mixed = ctx.saved_tensors
        (_, length, size), (rows, _, width) = q.shape, mixed.shape
        # The gradient of the softmax needs, per row, the sum of weights times their gradients. This is the sum of the
        # output times its gradient.
        total = (grad * mixed).view(rows, length, -1, size).sum(-1, dtype=torch.float32).transpose(1, 2)
        total = total.reshape(-1, length, 1).to(weights.dtype)
        grad = (grad * ctx.scale).view(rows, length, -1, size).transpose(1, 2).reshape(-1, length, size)
        kept = weights.clamp_min(0.0)
        result = torch.empty(3, *q.shape, dtype=q.dtype, device=q.device)
        torch.bmm(kept.mT, grad, out=result[2])
        scores = torch.bmm(grad, v.mT).mul_(kept).addcmul_(weights.abs(), total, value=-1.0)
        torch.bmm(scores, k, out=result[0]).mul_(size**-0.5)
        torch.bmm(scores.mT, q, out=result[1])
        result = result.view(3, rows, -1, length, size).permute(1, 3, 0, 2, 4)  # (B, T, 3, H, K)
        return result.reshape(rows, length, 3 * width), None, None, None
