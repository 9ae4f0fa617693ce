"""Multi-head self-attention.

Letters: B rows, T positions, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.model.dropout import draw_dropped, has_own_kernel, quantized


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(K)) v over H heads, then a projection (Vaswani et al. 2017, section 3.2).

    One matrix makes queries, keys and values: its rows are those of q, then k, then v.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None, causal: bool) -> torch.Tensor:
        """(B, T, D) -> (B, T, D). ``visible``: (B, 1, 1, T) bool, keys that may be attended to, or None for all."""
        rows, length, dim = x.shape
        qkv = self.qkv(x)
        dropout = self.dropout if self.training else 0.0
        if has_own_kernel(qkv) and (dropout or qkv.dtype is torch.bfloat16):
            return self.out(attend(qkv, self.heads, visible, causal, dropout))
        q, k, v = qkv.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=dropout, is_causal=causal)
        return self.out(mixed.transpose(1, 2).reshape(rows, length, dim))


def attend(qkv: torch.Tensor, heads: int, visible: torch.Tensor | None, causal: bool, dropout: float) -> torch.Tensor:
    """What scaled_dot_product_attention does, (B, T, 3 D) -> (B, T, D), for a CPU.

    torch has no kernel with dropout there, and puts it together from parts that compute in fp32 whatever the input; the
    one without dropout is slow in bf16. A position that may see none sees all.
    """
    hidden = None if visible is None else ~visible
    if causal:
        length = qkv.shape[1]
        hidden = torch.ones(length, length, dtype=torch.bool, device=qkv.device).triu_(1)
    return _Attend.apply(qkv, heads, hidden, dropout)


class _Attend(torch.autograd.Function):
    """Keeps one (T, T) matrix a head: the attention weights, negative where they were dropped."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def, override]
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
            dropped = draw_dropped(weights, dropout)
            dropped.bitwise_left_shift_(8 * weights.element_size() - 1)  # the sign
            weights.view(dropped.dtype).bitwise_or_(dropped)
        ctx.scale = 1.0 / (1.0 - quantized(dropout))
        mixed = torch.bmm(weights.clamp_min(0.0), v).view(rows, heads, length, -1).transpose(1, 2)
        mixed = mixed.reshape(rows, length, width // 3) * ctx.scale
        ctx.save_for_backward(q, k, v, weights, mixed)
        return mixed

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # type: ignore[no-untyped-def, override]
        q, k, v, weights, mixed = ctx.saved_tensors
        (_, length, size), (rows, _, width) = q.shape, mixed.shape
        # The softmax needs each row's sum of weight times gradient: that of what came out times its gradient.
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
