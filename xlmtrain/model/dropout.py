"""Dropout. On a CPU sixteen random bits decide on a number, where torch draws a number of its own for each, which takes
it a sixth of a training step.

The bits come from torch's generator, so the same seed drops the same.
"""

from __future__ import annotations

import torch
from torch import nn

_LEVELS = 1 << 16
_INTEGERS = {2: torch.int16, 4: torch.int32}


def has_own_kernel(x: torch.Tensor) -> bool:
    """Whether ``x`` is where torch's own operations are not the fastest, and not taken: a CPU, 16 or 32 bits."""
    return x.device.type == "cpu" and x.element_size() in _INTEGERS


def quantized(p: float) -> float:
    """The chance that :func:`draw_dropped` really has, at most 1/131072 from ``p``; below 1 for every ``p``."""
    return min(round(p * _LEVELS), _LEVELS - 1) / _LEVELS


def draw_dropped(like: torch.Tensor, p: float) -> torch.Tensor:
    """Integers as wide as the numbers of ``like``, of its shape: 1 with chance :func:`quantized` (p), else 0."""
    count = like.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    bits = words.view(torch.int16)[:count].view(like.shape)
    dropped = torch.empty(like.shape, dtype=_INTEGERS[like.element_size()], device=like.device)
    return torch.lt(bits, int(quantized(p) * _LEVELS) - _LEVELS // 2, out=dropped)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, p: float) -> torch.Tensor:  # type: ignore[no-untyped-def, override]
        kept = draw_dropped(x, p).sub_(1)  # 0 or all bits
        ctx.save_for_backward(kept)
        ctx.scale = 1.0 / (1.0 - quantized(p))
        return _keep(x, kept, ctx.scale)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[no-untyped-def, override]
        (kept,) = ctx.saved_tensors
        return _keep(grad, kept, ctx.scale), None


def _keep(x: torch.Tensor, kept: torch.Tensor, scale: float) -> torch.Tensor:
    return kept.bitwise_and(x.view(kept.dtype)).view(x.dtype) * scale


class Dropout(nn.Dropout):
    """Zeroes each number with chance ``p`` in training, and scales the others so that the mean stays."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        if self.training and self.p > 0.0 and has_own_kernel(x):
            return _Dropped.apply(x, self.p)
        return super().forward(x)
