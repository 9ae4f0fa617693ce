"""One Transformer layer.

Letters: B rows, T positions, D width.
"""

from __future__ import annotations

import torch
from torch import nn

from xlmtrain.config.schema import Activation, ModelConfig
from xlmtrain.model.attention import SelfAttention
from xlmtrain.model.kernels.dropout import Dropout

LAYER_NORM_EPS = 1e-12


class FeedForward(nn.Module):
    """Two linear maps with a non-linearity between, four times as wide inside."""

    def __init__(self, dim: int, activation: Activation) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, 4 * dim)
        self.activation = nn.GELU() if activation is Activation.gelu else nn.ReLU()
        self.outer = nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.outer(self.activation(self.inner(x)))


class Block(nn.Module):
    """Attention and feed-forward, each with dropout, a residual connection, and a norm after it (post-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.dim, config.heads, config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.ffn = FeedForward(config.dim, config.activation)
        self.ffn_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: torch.Tensor, key_mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
        """(B, T, D) -> (B, T, D); arguments as :meth:`SelfAttention.forward`'s."""
        x = self.attention_norm(x + self.dropout(self.attention(x, key_mask, causal)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))
