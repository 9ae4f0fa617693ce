"""Multi-head self-attention.

Letters: B rows, T positions, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


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
        q, k, v = self.qkv(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=dropout, is_causal=causal)
        return self.out(mixed.transpose(1, 2).reshape(rows, length, dim))
