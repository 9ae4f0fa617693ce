"""Lookup in an embedding matrix that is the weight of the output layer, too.

Reference: ``embedding(tokens), embedding.weight``. Its lookup has a gradient of the size of the matrix, nearly all
zeros, which autograd then adds to the gradient of the output layer.

Limits of the CPU version: the few looked-up rows are added to the gradient of the output layer in place. This needs the
output layer to use the returned matrix, not ``embedding.weight``; otherwise the gradients are right but nothing is
saved. It is used where gradients are computed.

Letters: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn

from xlmtrain.model.kernels import dispatch


def tied_embedding(embedding: nn.Embedding, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings (B, T, D) of ``tokens`` (B, T), and the matrix (V, D) for the output layer to use."""
    if dispatch.use_cpu_kernels(embedding.weight) and torch.is_grad_enabled():
        return _TiedEmbedding.apply(embedding.weight, tokens, embedding.padding_idx)
    return embedding(tokens), embedding.weight


class _TiedEmbedding(torch.autograd.Function):
    """One node for both uses of the matrix, so that it sees both gradients at once."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, weight: torch.Tensor, tokens: torch.Tensor, pad: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(tokens)
        ctx.pad = pad
        return weight[tokens], weight.view_as(weight)

    @staticmethod
    def backward(ctx, grad: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[no-untyped-def]
        (tokens,) = ctx.saved_tensors
        rows = grad * (tokens != ctx.pad)[..., None]
        return total.index_add_(0, tokens.flatten(), rows.flatten(0, -2)), None, None
