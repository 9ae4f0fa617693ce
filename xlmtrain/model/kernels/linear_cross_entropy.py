"""Cross-entropy of a linear layer's logits, summed over the targets, or over parts of them.

Reference: ``cross_entropy(linear(hidden, weight, bias))``. On CPUs its forward and backward pass make five (N, V)
matrices.

Limits of the CPU version: it computes all gradients but those of gradients, in fp32 or bf16, with one (N, V) matrix. It
is used where gradients are computed; fp16 takes the reference.

Letters: N targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from xlmtrain.model.kernels import dispatch
from xlmtrain.model.kernels.scratch import ScratchBuffer

TARGETS_MULTIPLE = 16
"""Targets are padded to a multiple of so many with ignored ones.

Their number differs from batch to batch, and each new number costs memory for good: a megabyte per size for the kernels
of oneDNN on CPUs, blocks of another size on GPUs.
"""
_IGNORED = -100
_CHUNK = 1 << 20
"""Logits per chunk of the softmax: as many as fit a processor's cache."""


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    scratch: ScratchBuffer,
    smoothing: float = 0.0,
    counts: Sequence[int] | None = None,
) -> torch.Tensor:
    """Return the cross-entropy in nats, () fp32, of logits ``hidden`` (N, D) ``weight`` (V, D)^T + ``bias`` (V,).

    ``targets``: (N,) int64. ``scratch``: for temporaries of the size of ``weight``. ``smoothing``: share of each target
    that is spread over all V entries (Szegedy et al. 2016, section 7). ``counts``: targets of each of P parts, whose
    cross-entropies, (P,), are returned then.
    """
    padding = -len(targets) % TARGETS_MULTIPLE
    hidden = F.pad(hidden, (0, 0, 0, padding))
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
    cpu = dispatch.use_cpu_kernels(hidden) and dtype in (torch.float32, torch.bfloat16)
    if cpu and torch.is_grad_enabled():
        sizes = [len(targets)] if counts is None else list(counts)
        losses = _FusedLinearCrossEntropy.apply(hidden, weight, bias, targets, dtype, scratch, smoothing, sizes)
        return losses[0] if counts is None else losses
    logits, reduction = F.linear(hidden, weight, bias).float(), "sum" if counts is None else "none"
    padded = F.pad(targets, (0, padding), value=_IGNORED)
    loss = F.cross_entropy(logits, padded, reduction=reduction, ignore_index=_IGNORED, label_smoothing=smoothing)
    return loss if counts is None else _summed(loss[: len(targets)], counts)


def _summed(losses: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    return torch.stack([part.sum() for part in losses.split(list(counts))])


class _FusedLinearCrossEntropy(torch.autograd.Function):
    """The loss with logits that become their own gradient in the forward pass, chunk by chunk, while they are cached.

    The gradient of ``hidden`` is computed in the forward pass, too, so that the copy of the weight in ``dtype`` is no
    longer needed after it. The gradient of the weight is written in fp32, part by part, into the scratch memory of that
    copy.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        targets: torch.Tensor,
        dtype: torch.dtype,
        scratch: ScratchBuffer,
        smoothing: float,
        counts: list[int],
    ) -> torch.Tensor:
        x = hidden.to(dtype)
        w = weight if weight.dtype is dtype else scratch.get(weight.shape, dtype).copy_(weight)
        logits = F.linear(x, w, bias.to(dtype))
        scored, padding = logits.split([len(targets), len(logits) - len(targets)])
        padding.zero_()
        losses = torch.empty(len(targets), dtype=torch.float32, device=x.device)
        rows = max(1, _CHUNK // len(weight))
        for part, target, loss in zip(scored.split(rows), targets[:, None].split(rows), losses.split(rows)):
            scores = part.log_softmax(dim=-1, dtype=torch.float32)
            torch.mul(scores.gather(1, target)[:, 0], smoothing - 1.0, out=loss)
            if smoothing:
                loss.sub_(scores.mean(1), alpha=smoothing)
            scores.exp_().scatter_add_(1, target, scores.new_full(target.shape, smoothing - 1.0))
            # Softmax minus one-hot, or minus the smoothed one: the gradient of the logits.
            part.copy_(scores.sub_(smoothing / len(weight)) if smoothing else scores)
        ctx.save_for_backward(x, torch.mm(logits, w), logits)
        ctx.scratch, ctx.counts = scratch, [*counts, len(padding)]
        return _summed(losses, counts)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, to_hidden, errors = ctx.saved_tensors
        scales = F.pad(grad, (0, 1))
        rows = torch.cat([scale.expand(count) for scale, count in zip(scales, ctx.counts)])[:, None]
        x = (x.float() * rows).to(x.dtype)
        to_weight = ctx.scratch.get((errors.shape[1], x.shape[1]), torch.float32)
        words = max(1, _CHUNK // x.shape[1])
        for part, some in zip(to_weight.split(words), errors.t().split(words)):
            part.copy_(torch.mm(some, x))
        parts = zip(errors.split(ctx.counts), scales)
        to_bias = torch.stack([part.sum(0, dtype=torch.float32).mul_(scale) for part, scale in parts]).sum(0)
        return to_hidden.float().mul_(rows), to_weight, to_bias, None, None, None, None, None
