"""The output layer: hidden states to logits over the vocabulary, and to the loss.

Letters: N targets, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.model.dropout import has_own_kernel
from xlmtrain.model.room import Room

_AT_ONCE = 1 << 20
"""Logits whose softmax is computed at once: what a processor's cache holds."""
_ROWS, _IGNORED = 16, -100
"""Targets are filled up to a multiple of so many, with some that count for nothing.

Their number is another in every batch, and each costs memory for good: for oneDNN's kernels on a CPU, a megabyte, and
for blocks of another size on a GPU.
"""


class Head(nn.Module):
    """A linear map to the vocabulary, without a transformation before it.

    ``tied``: the weights are the token embeddings', handed over at each call, so that a checkpoint has them once.
    """

    def __init__(self, dim: int, vocab_size: int, tied: bool) -> None:
        super().__init__()
        bound = dim**-0.5  # as torch starts a Linear
        self.weight = None if tied else nn.Parameter(torch.empty(vocab_size, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(vocab_size).uniform_(-bound, bound))
        self._room = Room()

    def forward(
        self, hidden: torch.Tensor, embeddings: torch.Tensor, targets: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (N, V) of ``hidden`` (N, D); ``embeddings`` (V, D).

        With ``targets`` (N,) their cross-entropy instead, summed, in nats, fp32.
        """
        weight = embeddings if self.weight is None else self.weight
        if targets is None:
            return F.linear(hidden, weight, self.bias)
        more = -len(targets) % _ROWS
        hidden = F.pad(hidden, (0, 0, 0, more))
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        if has_own_kernel(hidden) and torch.is_grad_enabled() and dtype in (torch.float32, torch.bfloat16):
            return _Loss.apply(hidden, weight, self.bias, targets, dtype, self._room)
        targets = F.pad(targets, (0, more), value=_IGNORED)
        logits = F.linear(hidden, weight, self.bias).float()
        return F.cross_entropy(logits, targets, reduction="sum", ignore_index=_IGNORED)


class _Loss(torch.autograd.Function):
    """Logits become their own gradient in the forward pass, while they are in the cache; there is one (N, V) matrix.

    The gradient of ``hidden`` is computed there, too, so that no copy of the weights in ``dtype`` outlives it; that of
    the weights is put into fp32 part by part, in the room where that copy was.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def, override]
        ctx,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        targets: torch.Tensor,
        dtype: torch.dtype,
        room: Room,
    ) -> torch.Tensor:
        x = hidden.to(dtype)
        w = weight if weight.dtype is dtype else room.take(weight.shape, dtype).copy_(weight)
        logits = F.linear(x, w, bias.to(dtype))
        scored, others = logits.split([len(targets), len(logits) - len(targets)])
        others.zero_()
        losses = torch.empty(len(targets), dtype=torch.float32, device=x.device)
        rows = max(1, _AT_ONCE // len(weight))
        for part, target, loss in zip(scored.split(rows), targets[:, None].split(rows), losses.split(rows)):
            scores = part.log_softmax(dim=-1, dtype=torch.float32)
            torch.neg(scores.gather(1, target)[:, 0], out=loss)
            scores.exp_().scatter_add_(1, target, scores.new_full(target.shape, -1.0))
            part.copy_(scores)
        ctx.save_for_backward(x, torch.mm(logits, w), logits)
        ctx.room = room
        return losses.sum()

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[no-untyped-def, override]
        x, to_hidden, errors = ctx.saved_tensors
        x = (x.float() * grad).to(x.dtype)
        to_weight = ctx.room.take((errors.shape[1], x.shape[1]), torch.float32)
        words = max(1, _AT_ONCE // x.shape[1])
        for part, some in zip(to_weight.split(words), errors.t().split(words)):
            part.copy_(torch.mm(some, x))
        to_bias = errors.sum(0, dtype=torch.float32).mul_(grad)
        return to_hidden.float().mul_(grad), to_weight, to_bias, None, None, None
