"""Locate the first non-finite number: recompute a step's batches with a hook on every module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from xlmtrain.config.schema import Precision
from xlmtrain.data.loader import GlobalBatchShard
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.precision import autocast
from xlmtrain.runtime.rng import torch_seed


@torch.compiler.set_stance("force_eager")  # hooks do not reach into what is compiled
def first_non_finite(model: LanguageModel, data: GlobalBatchShard, precision: Precision, seed: int) -> str | None:
    """Return the first module output or gradient that is not finite, or None if all numbers of this process are.

    Recomputes with the current weights and the step's dropout.
    """
    device = next(model.parameters()).device
    for batch in data.batches:
        torch.manual_seed(torch_seed(seed, "dropout", data.step, *batch.key))
        first = _NonFiniteHook()
        hooks = [module.register_forward_hook(first.watch(name)) for name, module in model.named_modules() if name]
        try:
            with autocast(precision, device):
                loss = model(batch.to(device))
            if first.found is None and not _finite(loss):
                first.found = "the output of head"  # which returns only the loss
            named = {name: p for name, p in model.named_parameters() if p.requires_grad}
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        finally:
            for hook in hooks:
                hook.remove()
        found = first.found or next(
            (f"the gradient of {name}" for name, g in zip(named, gradients) if g is not None and not _finite(g)), None
        )
        if found is not None:
            return f"{found} ({batch.name})"
    return None


class _NonFiniteHook:
    """Records the first non-finite tensor: forward through the modules, then backward."""

    def __init__(self) -> None:
        self.found: str | None = None

    def watch(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        """Return a forward hook for the module ``name``."""

        def check(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):
                return
            self._record(output, f"the output of {name}")
            if output.requires_grad:
                output.register_hook(lambda gradient: self._record(gradient, f"the gradient at the output of {name}"))

        return check

    def _record(self, tensor: torch.Tensor, place: str) -> None:
        if self.found is None and not _finite(tensor):
            self.found = place


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
