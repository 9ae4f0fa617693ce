"""The output layer: hidden states to logits over the vocabulary, and to the loss.

Letters: N targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.config.model import Activation, ModelConfig
from xlmtrain.model.block import make_activation, make_norm
from xlmtrain.model.kernels.linear_cross_entropy import linear_cross_entropy
from xlmtrain.model.kernels.scratch import ScratchBuffer


class HeadTransform(nn.Sequential):
    """A linear map, a non-linearity and a norm, (N, D) -> (N, D).

    The map begins as the identity: from a random one a model takes longer to learn as much (benchmarks/recipe.md).
    """

    def __init__(self, config: ModelConfig) -> None:
        dense = nn.Linear(config.dim, config.dim, bias=config.parts.biases)
        nn.init.eye_(dense.weight)
        if dense.bias is not None:
            nn.init.zeros_(dense.bias)
        activation = make_activation(Activation.gelu if config.parts.gelu_head else config.activation)
        super().__init__(OrderedDict(dense=dense, activation=activation, norm=make_norm(config)))


class Head(nn.Module):
    """A linear map to the vocabulary; in some families a transformation comes before it.

    A tied weight is the token embeddings', an argument of each call, so that a checkpoint has it once.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        dim = config.dim
        self.transform = HeadTransform(config) if config.parts.head_transform else None
        bound = dim**-0.5  # the initialization of nn.Linear
        self.weight = (
            None if config.tie_embeddings else nn.Parameter(torch.empty(vocab_size, dim).uniform_(-bound, bound))
        )
        self.bias = nn.Parameter(torch.empty(vocab_size).uniform_(-bound, bound))
        self._scratch = ScratchBuffer()

    def forward(
        self,
        hidden: torch.Tensor,
        embeddings: torch.Tensor,
        targets: torch.Tensor | None = None,
        smoothing: float = 0.0,
        counts: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Return the logits (N, V) of ``hidden`` (N, D); ``embeddings`` (V, D).

        With ``targets`` (N,): their cross-entropy instead, summed, in nats, () fp32, with label ``smoothing``; with
        ``counts``, (P,), that of each of P parts of so many targets.
        """
        weight = embeddings if self.weight is None else self.weight
        if self.transform is not None:
            hidden = self.transform(hidden)
        if targets is None:
            return F.linear(hidden, weight, self.bias)
        return linear_cross_entropy(hidden, weight, self.bias, targets, self._scratch, smoothing, counts)
