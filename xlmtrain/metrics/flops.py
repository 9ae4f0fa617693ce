"""Arithmetic per token, and what GPUs can do: NVIDIA's data sheets, and what reductions between GPUs reach."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from xlmtrain.config.model import ModelConfig
from xlmtrain.config.train import Precision


@dataclass(frozen=True)
class GpuSpec:
    """``flops``: dense half-precision peak, FLOP/s. ``bandwidth``: of its memory, bytes/s. ``memory``: bytes.

    ``peer_bandwidth``: bytes/s of a reduction between the GPUs of a host, as measured, not as on the data sheet; an
    estimate for the PCIe parts, without bridges. ``network``: Gb/s of a usual host with eight of them. ``watts``: the
    largest power.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    peer_bandwidth: float
    network: float
    watts: float


# SXM parts, unless the name says otherwise.
GPUS = (
    GpuSpec("H200", 989e12, 4.8e12, 141e9, 350e9, 3200, 700),
    GpuSpec("H100", 989e12, 3.35e12, 80e9, 350e9, 3200, 700),
    GpuSpec("A100", 312e12, 2.0e12, 80e9, 200e9, 1600, 400),
    GpuSpec("V100", 125e12, 0.9e12, 32e9, 60e9, 100, 300),
    GpuSpec("GH200", 989e12, 4.0e12, 96e9, 350e9, 3200, 1000),
    GpuSpec("H200 NVL", 835e12, 4.8e12, 141e9, 40e9, 1600, 600),
    GpuSpec("H100 NVL", 835e12, 3.9e12, 94e9, 40e9, 1600, 400),
    GpuSpec("H100 PCIe", 756e12, 2.0e12, 80e9, 40e9, 1600, 350),
    GpuSpec("V100 PCIe", 112e12, 0.9e12, 32e9, 10e9, 100, 250),
)


def gpu_named(device: str) -> GpuSpec | None:
    """Return the GPU with the most words of its name in ``device``; None for an unknown GPU or a MIG slice of one."""
    words = set(re.split(r"[\s-]+", device.upper()))
    matches = [gpu for gpu in GPUS if "MIG" not in words and words >= set(gpu.name.upper().split())]
    return max(matches, key=lambda gpu: len(gpu.name.split()), default=None)


def flops_per_token(
    model: ModelConfig, vocab_size: int, length: int, scored: float, translated: float = 0.0, skipped: float = 0.0
) -> float:
    """Return the floating-point operations of forward and backward per token.

    6 per weight of the blocks, 6 per weight of the output layer for the share ``scored`` of the tokens that it sees,
    and 12 * layers * dim * ``length`` for attention (Kaplan et al. 2020, section 2.1, with the backward pass as twice
    the forward pass). The share ``translated`` of the tokens, of sources and of targets, goes through two of the four
    matrices of attention to the source, too. The share ``skipped`` goes through the query, key and value matrices and
    attention alone in the last block.
    """
    blocks = (model.block_weights + 2 * translated * model.dim**2) * model.layers
    blocks -= skipped * (model.block_weights - 3 * model.dim**2)
    return 6 * blocks + 6 * vocab_size * model.dim * scored + 12 * model.layers * model.dim * length


def skipped_share(scored: float, translated: float) -> float:
    """Return the share of the tokens whose last hidden states no loss needs, those of language models without a target.

    ``scored``: share of the tokens that are targets. ``translated``: of sources and translations, half of them targets.
    """
    return max(0.0, 1 - translated / 2 - scored) if translated < 1 else 0.0


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Return the device's half-precision peak in FLOP/s; None if it is unknown or the run computes in fp32."""
    if device.type != "cuda" or precision is Precision.fp32:
        return None
    gpu = gpu_named(torch.cuda.get_device_name(device))
    return gpu.flops if gpu is not None else None
