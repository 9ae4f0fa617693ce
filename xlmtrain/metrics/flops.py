"""Floating-point operations per token, and the peak of a device."""

from __future__ import annotations

import torch

from xlmtrain.config.schema import ModelConfig, Precision
from xlmtrain.metrics.gpus import gpu_named


def flops_per_token(model: ModelConfig, vocab_size: int, length: int, scored: float) -> float:
    """Return the floating-point operations of forward and backward per token.

    6 per weight of the blocks, 6 per weight of the output layer for the share ``scored`` of the tokens that it sees,
    and 12 * layers * dim * ``length`` for attention (Kaplan et al. 2020, section 2.1, with the backward pass as twice
    the forward pass).
    """
    blocks = 12 * model.dim**2 * model.layers
    return 6 * blocks + 6 * vocab_size * model.dim * scored + 12 * model.layers * model.dim * length


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Return the device's half-precision peak in FLOP/s; None if unknown, or if the run uses fp32."""
    if device.type != "cuda" or precision is Precision.fp32:
        return None
    gpu = gpu_named(torch.cuda.get_device_name(device))
    return gpu.flops if gpu is not None else None
