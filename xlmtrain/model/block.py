"""One Transformer layer.

Letters: B rows, T positions, D width.
"""

from __future__ import annotations

import torch
from torch import nn

from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.model.attention import AttentionView, SelfAttention, take_positions
from xlmtrain.model.kernels import dispatch
from xlmtrain.model.kernels.dropout import Dropout


def make_norm(config: ModelConfig) -> nn.LayerNorm:
    """Return a norm over D."""
    return nn.LayerNorm(config.dim, eps=config.norm_eps, bias=config.parts.biases)


def make_activation(activation: Activation) -> nn.Module:
    """Return the non-linearity."""
    return nn.GELU() if activation is Activation.gelu else nn.ReLU()


class FeedForward(nn.Module):
    """Two linear maps with a non-linearity between.

    Gated, the first map makes the input of the non-linearity and a factor of its output (GeGLU, Shazeer 2020).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated, width, biases = config.parts.gated, config.ffn_width, config.parts.biases
        self.inner = nn.Linear(config.dim, 2 * width if self.gated else width, bias=biases)
        self.activation = make_activation(config.activation)
        self.outer = nn.Linear(width, config.dim, bias=biases)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = self.inner(x)
        if self.gated:
            x, gate = x.chunk(2, dim=-1)
            if dispatch.use_cpu_kernels(x):
                x = x.contiguous()  # torch's GELU is three times as slow on a part of a bf16 matrix
            return self.outer(self.activation(x) * gate)
        return self.outer(self.activation(x))


class Block(nn.Module):
    """Attention and feed-forward, each with dropout, a residual connection, and a norm after it or before it.

    ``layer``: number of the block, from 0. ``local``: it attends to nearby positions only.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.pre_norm = config.parts.pre_norm
        self.local = config.parts.local and layer % config.global_every > 0
        self.attention = SelfAttention(config)
        self.attention_norm = nn.Identity() if self.pre_norm and layer == 0 else make_norm(config)
        self.ffn = FeedForward(config)
        self.ffn_norm = make_norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: torch.Tensor, view: AttentionView, at: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D), or (N, D) at the positions ``at``; see :func:`take_positions`."""
        mixed = self.attention(self.attention_norm(x) if self.pre_norm else x, view, at)
        x = take_positions(x, at) + self.dropout(mixed)
        if self.pre_norm:
            return x + self.dropout(self.ffn(self.ffn_norm(x)))
        x = self.attention_norm(x)
        return self.ffn_norm(x + self.dropout(self.ffn(x)))
