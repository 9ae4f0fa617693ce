"""Multi-head attention, from the joint projection of queries, keys and values to the mixed values.

Reference: torch's ``scaled_dot_product_attention``, head by head. On CPUs torch has no fused kernel with dropout: it
composes one from operations in fp32, whatever the dtype. Its kernel without dropout is slow in bf16.

Limits of the CPU version: one (T, S) matrix per head is stored for the backward pass. It is used with dropout or in
bf16, where it is faster. A position that may attend to no key attends to all of them. ``causal`` ignores ``key_mask``.

Letters: B rows, T positions, S positions of the keys, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from xlmtrain.model.kernels import dispatch
from xlmtrain.model.kernels.dropout import drop_mask, quantized_rate


def attention(
    query: torch.Tensor,
    key_value: torch.Tensor | None,
    heads: int,
    key_mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(K)) v of all heads, (B, T, D).

    ``query``: (B, T, D). ``key_value``: keys, then values, (B, S, 2 D); None for self-attention, where ``query`` is
    (B, T, 3 D): queries, then keys, then values. ``key_mask``: (B, 1, 1, S) bool, keys that may be attended to, or None
    for all. ``causal``: a position attends to itself and the positions before it; for self-attention. ``dropout``: rate
    on the weights.
    """
    if dispatch.use_cpu_kernels(query) and (dropout or query.dtype is torch.bfloat16):
        return cpu_attention(query, key_value, heads, key_mask, causal, dropout)
    return reference_attention(query, key_value, heads, key_mask, causal, dropout)


def reference_attention(
    query: torch.Tensor,
    key_value: torch.Tensor | None,
    heads: int,
    key_mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
) -> torch.Tensor:
    """Return the same, by torch's kernel."""
    parts = [query] if key_value is None else [query, key_value]
    size = query.shape[2] // (3 if key_value is None else 1) // heads
    q, k, v = (x for part in parts for x in part.unflatten(2, (-1, heads, size)).permute(2, 0, 3, 1, 4))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask, dropout_p=dropout, is_causal=causal)
    return mixed.transpose(1, 2).flatten(2)


def cpu_attention(
    query: torch.Tensor,
    key_value: torch.Tensor | None,
    heads: int,
    key_mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
) -> torch.Tensor:
    """Return the same, by batched matrix products in the dtype of ``query``."""
    hidden = None if key_mask is None else ~key_mask
    if causal:
        length = query.shape[1]
        hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu_(1)
    return _CpuAttention.apply(query, key_value, heads, hidden, dropout)


def _split_heads(x: torch.Tensor, heads: int, size: int) -> torch.Tensor:
    """(B, T, n D) -> (n, B H, T, K), contiguous."""
    return x.unflatten(2, (-1, heads, size)).permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2)


def _join_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(n, B H, T, K) -> (B, T, n D)."""
    return x.unflatten(1, (-1, heads)).permute(1, 3, 0, 2, 4).flatten(2)


class _CpuAttention(torch.autograd.Function):
    """Attention with one stored (T, S) matrix per head.

    The attention weights are positive, so their sign bit is free: it is set where dropout removed the weight. One
    matrix is then both the weights (its absolute value) and the dropout mask (its sign).
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        query: torch.Tensor,
        key_value: torch.Tensor | None,
        heads: int,
        hidden: torch.Tensor | None,
        dropout: float,
    ) -> torch.Tensor:
        ctx.joint, ctx.heads = key_value is None, heads
        size = query.shape[2] // (3 if key_value is None else 1) // heads
        if key_value is None:
            q, k, v = _split_heads(query, heads, size)
        else:
            (q,), (k, v) = _split_heads(query, heads, size), _split_heads(key_value, heads, size)
        q = q * size**-0.5
        scores = torch.bmm(q, k.mT)
        if hidden is not None:
            scores.unflatten(0, (-1, heads)).masked_fill_(hidden, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1, out=scores)
        if dropout:
            dropped = drop_mask(weights, dropout)
            dropped.bitwise_left_shift_(8 * weights.element_size() - 1)  # to the place of the sign bit
            weights.view(dropped.dtype).bitwise_or_(dropped)
        ctx.scale = 1.0 / (1.0 - quantized_rate(dropout))
        mixed = _join_heads(torch.bmm(weights.clamp_min(0.0), v)[None], heads) * ctx.scale
        ctx.save_for_backward(q, k, v, weights, mixed)
        return mixed

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[no-untyped-def]
        q, k, v, weights, mixed = ctx.saved_tensors
        heads, size = ctx.heads, q.shape[2]
        # The gradient of the softmax needs, per row, the sum of weights times their gradients. This is the sum of the
        # output times its gradient.
        total = (grad * mixed).unflatten(2, (heads, size)).sum(-1, dtype=torch.float32).transpose(1, 2)
        total = total.flatten(0, 1)[..., None].to(weights.dtype)
        (grad,) = _split_heads(grad * ctx.scale, heads, size)
        kept = weights.clamp_min(0.0)
        scores = torch.bmm(grad, v.mT).mul_(kept).addcmul_(weights.abs(), total, value=-1.0)
        if ctx.joint:
            to_query = to_key_value = q.new_empty(3, *q.shape)
        else:
            to_query, to_key_value = q.new_empty(1, *q.shape), q.new_empty(2, *k.shape)
        torch.bmm(scores, k, out=to_query[0]).mul_(size**-0.5)
        torch.bmm(scores.mT, q, out=to_key_value[-2])
        torch.bmm(kept.mT, grad, out=to_key_value[-1])
        key_value_grad = None if ctx.joint else _join_heads(to_key_value, heads)
        return _join_heads(to_query, heads), key_value_grad, None, None, None
