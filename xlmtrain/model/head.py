"""The output layer: hidden states to logits over the vocabulary, and to the loss.

Letters: N targets, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.model.kernels.linear_cross_entropy import linear_cross_entropy
from xlmtrain.model.kernels.scratch import ScratchBuffer


class Head(nn.Module):
    """A linear map to the vocabulary, without a transformation before it.

    ``tied``: the weight is the token embeddings', an argument of each call, so that a checkpoint has it once.
    """

    def __init__(self, dim: int, vocab_size: int, tied: bool) -> None:
        super().__init__()
        bound = dim**-0.5  # the initialization of nn.Linear
        self.weight = None if tied else nn.Parameter(torch.empty(vocab_size, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(vocab_size).uniform_(-bound, bound))
        self._scratch = ScratchBuffer()

    def forward(
        self,
        hidden: torch.Tensor,
        embeddings: torch.Tensor,
        targets: torch.Tensor | None = None,
        smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the logits (N, V) of ``hidden`` (N, D); ``embeddings`` (V, D).

        With ``targets`` (N,): their cross-entropy instead, summed, in nats, () fp32, with label ``smoothing``.
        """
        weight = embeddings if self.weight is None else self.weight
        if targets is None:
            return F.linear(hidden, weight, self.bias)
        return linear_cross_entropy(hidden, weight, self.bias, targets, self._scratch, smoothing)
