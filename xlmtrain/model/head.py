"""The output layer: hidden states to logits over the vocabulary."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Head(nn.Module):
    """A linear map to the vocabulary, without a transformation before it.

    ``tied``: the weights are the token embeddings', handed over at each call, so that a checkpoint has them once.
    """

    def __init__(self, dim: int, vocab_size: int, tied: bool) -> None:
        super().__init__()
        bound = dim**-0.5  # as torch starts a Linear
        self.weight = None if tied else nn.Parameter(torch.empty(vocab_size, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(vocab_size).uniform_(-bound, bound))

    def forward(self, hidden: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (N, V) of ``hidden`` (N, D); ``embeddings`` (V, D)."""
        return F.linear(hidden, embeddings if self.weight is None else self.weight, self.bias)
