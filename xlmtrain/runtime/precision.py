"""Number formats: what matrix products are computed in, and the loss scale that fp16 needs."""

from __future__ import annotations

import torch

from xlmtrain.config.schema import Precision, TrainConfig
from xlmtrain.errors import ConfigError

HALF = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}
"""The formats of two bytes."""


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """``wanted``, with ``auto`` settled: bf16 on GPUs that have it, fp16 on older ones such as Volta, fp32 on CPU.

    Raises ConfigError for bf16 on a GPU without it.
    """
    has_bf16 = device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 0)
    if wanted is Precision.bf16 and not has_bf16:
        raise ConfigError(f"train.precision=bf16: {torch.cuda.get_device_name(device)} has no bf16; take fp16 or auto")
    if wanted is not Precision.auto:
        return wanted
    if device.type == "cpu":
        return Precision.fp32
    return Precision.bf16 if has_bf16 else Precision.fp16


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which matrix products run in ``precision``; weights, norms and losses stay fp32."""
    dtype = HALF.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def make_scaler(config: TrainConfig, precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Dynamic loss scaling for fp16 (Micikevicius et al. 2018, section 3.2); does nothing otherwise."""
    return torch.amp.GradScaler(
        device.type,
        init_scale=config.initial_loss_scale,
        growth_interval=config.loss_scale_window,
        enabled=precision is Precision.fp16,
    )
