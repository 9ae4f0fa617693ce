"""A device without numbers, of which torch knows no more than that it is no CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet, _ExcludeDispatchKeyGuard
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from xlmtrain.runtime.precision import HALF

NAME = "blind"
ATEN = torch.ops.aten


class Backend(_DummyBackendModule):
    """What torch asks a device's module for."""

    def device_count(self) -> int:
        return 1

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return list(HALF.values())

    def manual_seed(self, seed: int) -> None:
        pass


def make_device() -> torch.device:
    """A device of which torch knows that it is no CPU, and to which autocast applies."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    key = DispatchKeySet(DispatchKey.AutocastPrivateUse1)
    others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    others.fallback(torch.library.fallthrough_kernel)
    products = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    make_device.keep = others, products  # type: ignore[attr-defined]

    def lower(product: Any) -> Callable[..., torch.Tensor]:
        def cast(value: Any) -> Any:
            half = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.to(torch.get_autocast_dtype(NAME)) if half else value

        def run(*args: Any, **kwargs: Any) -> torch.Tensor:
            with _ExcludeDispatchKeyGuard(key):
                return product(*map(cast, args), **kwargs)

        return run

    for name in ("linear", "scaled_dot_product_attention"):
        products.impl(name, lower(getattr(ATEN, name)))
    return torch.device(NAME, 0)
