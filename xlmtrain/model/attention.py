"""Multi-head attention: of a sequence to itself, and of a target to its source.

Letters: B rows, T positions, S positions of the source, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

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

    def step(self, x: torch.Tensor, cache: torch.Tensor, filled: int, key_mask: torch.Tensor | None) -> torch.Tensor:
        """Return the outputs (B, T, D) of ``x`` (B, T, D), the next T positions, after ``filled`` earlier ones.

        ``cache``: (2, B, H, capacity, K), keys and values of the earlier positions; those of the new ones are added.
        ``key_mask``: (B, 1, T, filled + T) bool, keys that may be attended to, or None for all.
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        end = filled + x.shape[1]
        cache[0, :, :, filled:end], cache[1, :, :, filled:end] = k, v
        keys, values = cache[:, :, :, :end]
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=key_mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention with queries from the target, keys and values from the source's last hidden states.

    One matrix makes keys and values: its rows are those of k, then v.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def keys_values(self, source: torch.Tensor) -> torch.Tensor:
        """Return keys and values, (2, B, H, S, K), of the source's hidden states (B, S, D)."""
        return self.key_value(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x: torch.Tensor, keys_values: torch.Tensor, source_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D). ``source_mask``: (B, 1, 1, S) bool, keys that may be attended to, or None for all."""
        q = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, T, K)
        keys, values = keys_values
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=source_mask, dropout_p=rate)
        return self.out(mixed.transpose(1, 2).flatten(2))
