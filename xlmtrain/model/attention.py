"""Multi-head self-attention.

Letters: B rows, T positions, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
from torch import nn

from xlmtrain.model.kernels.attention import attention


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

    def forward(self, x: torch.Tensor, key_mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
        """(B, T, D) -> (B, T, D). ``key_mask``: (B, 1, 1, T) bool, keys that may be attended to, or None for all."""
        return self.out(attention(self.qkv(x), self.heads, key_mask, causal, self.dropout if self.training else 0.0))
