"""Precision and mode of computing: the number format of matrix products, loss scaling for fp16, evaluation mode."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from xlmtrain.config.train import Precision, TrainConfig
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.device import device_name

log = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)
HALF = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}
"""Half-precision formats."""


def has_bf16(device: torch.device) -> bool:
    """Return True if the hardware multiplies in bf16: most GPUs (NVIDIA: since Ampere), CPUs with AVX512-BF16, AMX."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile"))
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type != "xpu" or bool(torch.xpu.is_bf16_supported(including_emulation=False))


def choose_precision(wanted: Precision, device: torch.device, setting: str = "train.precision") -> Precision:
    """Return ``wanted``, with ``auto`` resolved: bf16 where the hardware has it; else fp16 on GPUs, fp32 on CPUs.
    On MPS ``auto`` is fp32, as nobody has tried the others there.

    ``setting``: its key path. Raises ConfigError for bf16 on a GPU without it. On a CPU without it bf16 is slower than
    fp32, and fp16 on any CPU: that is a warning.
    """
    native, cpu = has_bf16(device), device.type == "cpu"
    if wanted is Precision.auto:
        if device.type == "mps":
            return Precision.fp32
        return Precision.bf16 if native else Precision.fp32 if cpu else Precision.fp16
    if wanted is Precision.bf16 and not native:
        if not cpu:
            raise ConfigError(f"{setting}=bf16: {device_name(device)} has no bf16; take fp16 or auto")
        log.warning(
            "%s=bf16: this CPU has neither AVX512-BF16 nor AMX and is faster in fp32; take fp32 or auto", setting
        )
    if wanted is Precision.fp16 and cpu:
        log.warning("%s=fp16: slower than fp32 on a CPU; take fp32 or auto", setting)
    return wanted


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return a context in which matrix products run in ``precision``; weights, norms and losses stay fp32."""
    dtype = HALF.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def cast_linear_layers(model: M, precision: Precision) -> M:
    """Return ``model``, which trains no more, with new weights of the linear layers in ``precision``, cast once.

    Autocast casts them in each pass, and computes the same. Tables and the output layer stay fp32. Without autocast the
    model no longer computes.
    """
    if precision in HALF:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                for name, weight in list(module.named_parameters()):
                    setattr(module, name, nn.Parameter(weight.detach().to(HALF[precision])))
    return model


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch off dropout and gradients within the context; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def make_scaler(config: TrainConfig, precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Return dynamic loss scaling for fp16 (Micikevicius et al. 2018, section 3.2), disabled for other formats."""
    return torch.amp.GradScaler(
        device.type,
        init_scale=config.initial_loss_scale,
        growth_interval=config.loss_scale_window,
        enabled=precision is Precision.fp16,
    )
