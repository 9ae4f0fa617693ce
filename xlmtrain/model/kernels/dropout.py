"""Dropout.

Reference: torch's ``dropout``, which draws a 32-bit random number per element on CPUs, a sixth of a training step.

Limits of the CPU version: it draws 16 random bits per element, so the rate is a multiple of 1/65536. The bits come from
torch's generator: the same seed drops the same elements, but others than the reference would.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.model.kernels import dispatch

_LEVELS = 1 << 16
_INTEGERS = {2: torch.int16, 4: torch.int32}
"""Bytes of a number -> the integers as wide."""


class Dropout(nn.Dropout):
    """Zeroes each element with probability ``p`` in training, and scales the others so that the mean stays."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of ``x``, or ``x`` itself outside training."""
        return dropout(x, self.p) if self.training else x


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Return ``x`` (any shape) with each element zeroed with probability ``p``, the others divided by 1 - ``p``."""
    if p == 0.0:
        return x
    return cpu_dropout(x, p) if dispatch.use_cpu_kernels(x) else F.dropout(x, p)


def cpu_dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Return the same, with a rate of :func:`quantized_rate`."""
    return _BitDropout.apply(x, p)


def quantized_rate(p: float) -> float:
    """Return the multiple of 1/65536 that is nearest to ``p``, but below 1."""
    return min(round(p * _LEVELS), _LEVELS - 1) / _LEVELS


def drop_mask(like: torch.Tensor, p: float) -> torch.Tensor:
    """Return integers of the shape and element size of ``like``: 1 with probability :func:`quantized_rate`, else 0."""
    count = like.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    bits = words.view(torch.int16)[:count].view(like.shape)
    dropped = torch.empty(like.shape, dtype=_INTEGERS[like.element_size()], device=like.device)
    return torch.lt(bits, int(quantized_rate(p) * _LEVELS) - _LEVELS // 2, out=dropped)


class _BitDropout(torch.autograd.Function):
    """Dropout by a bit mask: 0 for a dropped element, all ones for a kept one."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, p: float) -> torch.Tensor:  # type: ignore[no-untyped-def]
        kept = drop_mask(x, p).sub_(1)
        ctx.save_for_backward(kept)
        ctx.scale = 1.0 / (1.0 - quantized_rate(p))
        return _apply_mask(x, kept, ctx.scale)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[no-untyped-def]
        (kept,) = ctx.saved_tensors
        return _apply_mask(grad, kept, ctx.scale), None


def _apply_mask(x: torch.Tensor, kept: torch.Tensor, scale: float) -> torch.Tensor:
    return kept.bitwise_and(x.view(kept.dtype)).view(x.dtype) * scale
