"""The output layer: hidden states to logits over the vocabulary, and to the loss.

Letters: N targets, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_AT_ONCE = 1 << 20
"""Logits whose softmax is computed at once: what a processor's cache holds."""


class Head(nn.Module):
    """A linear map to the vocabulary, without a transformation before it.

    ``tied``: the weights are the token embeddings', handed over at each call, so that a checkpoint has them once.
    """

    def __init__(self, dim: int, vocab_size: int, tied: bool) -> None:
        super().__init__()
        bound = dim**-0.5  # as torch starts a Linear
        self.weight = None if tied else nn.Parameter(torch.empty(vocab_size, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(vocab_size).uniform_(-bound, bound))

    def forward(
        self, hidden: torch.Tensor, embeddings: torch.Tensor, targets: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (N, V) of ``hidden`` (N, D); ``embeddings`` (V, D).

        With ``targets`` (N,) their cross-entropy instead, summed, in nats, fp32.
        """
        weight = embeddings if self.weight is None else self.weight
        if targets is None:
            return F.linear(hidden, weight, self.bias)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        if hidden.device.type == "cpu" and torch.is_grad_enabled() and dtype in (torch.float32, torch.bfloat16):
            return _Loss.apply(hidden, weight, self.bias, targets, dtype)
        return F.cross_entropy(F.linear(hidden, weight, self.bias).float(), targets, reduction="sum")


class _Loss(torch.autograd.Function):
    """Logits become their own gradient in the forward pass, while they are in the cache; there is one (N, V) matrix."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def, override]
        ctx, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        x, w = hidden.to(dtype), weight.to(dtype)
        logits = F.linear(x, w, bias.to(dtype))
        losses = torch.empty(len(targets), dtype=torch.float32, device=x.device)
        rows = max(1, _AT_ONCE // len(weight))
        for part, target, loss in zip(logits.split(rows), targets[:, None].split(rows), losses.split(rows)):
            scores = part.log_softmax(dim=-1, dtype=torch.float32)
            torch.neg(scores.gather(1, target)[:, 0], out=loss)
            scores.exp_().scatter_add_(1, target, scores.new_full(target.shape, -1.0))
            part.copy_(scores)
        ctx.save_for_backward(x, w, logits)
        return losses.sum()

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[no-untyped-def, override]
        x, w, errors = ctx.saved_tensors
        return (
            torch.mm(errors, w).float().mul_(grad),
            torch.mm(errors.t(), (x.float() * grad).to(x.dtype)).float(),
            errors.sum(0, dtype=torch.float32).mul_(grad),
            None,
            None,
        )
