"""Adam with decoupled weight decay, torch's fused kernel or NVIDIA apex's; and Muon beside it."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from xlmtrain.config.optim import FusedAdam, OptimConfig, OptimizerName
from xlmtrain.errors import ConfigError

APEX_SOURCE = "https://github.com/NVIDIA/apex"


def make_optimizer(config: OptimConfig, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer of the trainable parameters of ``model``; only linear layers' matrices have weight decay.

    Raises ConfigError if apex is asked for and cannot be used.
    """
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.name is OptimizerName.muon:
        return MuonWithAdamW(config, model)
    groups = [
        {"params": [p for p in parameters if (id(p) in matrices) == decayed], "weight_decay": decay}
        for decayed, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    betas = (config.beta1, config.beta2)
    if config.fused is FusedAdam.apex:
        return _apex_fused_adam(device)(groups, lr=config.lr, betas=betas, eps=config.eps, adam_w_mode=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices of the blocks of ``model``, AdamW for its other trainable parameters.

    Both keep their state here, by parameter, and take their learning rates from the groups of parameters here.
    """

    def __init__(self, config: OptimConfig, model: nn.Module) -> None:
        matrices = muon_matrices(model)
        known = set(map(id, matrices))
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
        self._parts = (
            torch.optim.Muon(
                matrices,
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                others, config.lr, (config.beta1, config.beta2), config.eps, weight_decay=0.0, fused=True
            ),
        )
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        for part in self._parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step both."""
        for part in self._parts:
            part.step(closure)


def muon_matrices(model: nn.Module) -> list[torch.Tensor]:
    """Return the trainable weights of the linear layers in the blocks of ``model``."""
    blocks = [block for block in getattr(model, "blocks", []) if isinstance(block, nn.Module)]
    linear = [module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]
    return [module.weight for module in linear if module.weight.requires_grad]


def is_pypi_apex() -> bool:
    """Return True if the installed package ``apex`` is the web toolkit on PyPI, not NVIDIA's."""
    try:
        summary = str(importlib.metadata.metadata("apex")["Summary"])
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return False
    return "pyramid" in summary.lower()


def _apex_fused_adam(device: torch.device) -> Callable[..., torch.optim.Optimizer]:
    """Return apex.optimizers.FusedAdam. Raises ConfigError with the reason if it cannot be used."""
    if is_pypi_apex():
        raise ConfigError(
            "optim.fused=apex: the installed package `apex` is PyPI's web toolkit of that name, not NVIDIA's; "
            f"pip uninstall apex, then build NVIDIA apex from {APEX_SOURCE}, or set optim.fused=torch"
        )
    try:
        fused_adam = importlib.import_module("apex.optimizers").FusedAdam
        importlib.import_module("amp_C")
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"optim.fused=apex: NVIDIA apex is not installed with its CUDA extensions ({error}); build it from "
            f"{APEX_SOURCE} with APEX_CPP_EXT=1 APEX_CUDA_EXT=1, or set optim.fused=torch, which gives the same step"
        ) from None
    if device.type != "cuda":
        raise ConfigError(f"optim.fused=apex: apex works on CUDA only, this run is on {device}; set optim.fused=torch")
    return fused_adam
