"""Looking up embeddings whose matrix is the output layer's, too.

Letters: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn

from xlmtrain.model.dropout import has_own_kernel


def look_up(table: nn.Embedding, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The embeddings (B, T, D) of ``tokens`` (B, T), and the matrix (V, D) for the output layer to use.

    torch makes the gradient of a look-up a (V, D) matrix of its own, nearly all zeros, and adds it to the output
    layer's. On a CPU the few rows are added there instead, as long as this matrix is the one used. Elsewhere, or with
    no gradient to compute, both are what they always are.
    """
    if has_own_kernel(table.weight) and torch.is_grad_enabled():
        return _LookUp.apply(table.weight, tokens, table.padding_idx)
    return table(tokens), table.weight


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def, override]
        ctx, weight: torch.Tensor, tokens: torch.Tensor, pad: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(tokens)
        ctx.pad = pad
        return weight[tokens], weight.view_as(weight)

    @staticmethod
    def backward(ctx, grad: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[no-untyped-def, override]
        (tokens,) = ctx.saved_tensors
        rows = grad * (tokens != ctx.pad)[..., None]
        return total.index_add_(0, tokens.flatten(), rows.flatten(0, -2)), None, None
