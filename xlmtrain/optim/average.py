"""Averages of the weights over training: exponential (EMA), or uniform over all steps from a first one on (SWA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from xlmtrain.config.optim import AverageConfig, AverageKind
from xlmtrain.errors import ConfigError


class WeightAverage:
    """The mean of the weights of ``model`` after each step; ``values``: name -> tensor, empty before the first one."""

    def __init__(self, config: AverageConfig, model: nn.Module) -> None:
        self._config, self._weights = config, dict(model.named_parameters())
        self.values: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after ``step`` steps. The first steps of an EMA have equal weights, as in a mean."""
        number = step - self._config.start
        if self._config.kind is AverageKind.none or number < 1:
            return
        if not self.values:
            self.values = {name: weight.detach().clone() for name, weight in self._weights.items()}
        share = 1 / number if self._config.kind is AverageKind.uniform else max(1 / number, 1 - self._config.decay)
        torch._foreach_lerp_([*map(_local, self.values.values())], [*map(_local, self._weights.values())], share)

    def load(self, values: Mapping[str, torch.Tensor], step: int) -> None:
        """Take the average that a checkpoint has after ``step`` steps. Raises ConfigError if it should have one."""
        if self._config.kind is AverageKind.none or step <= self._config.start:
            return
        if values.keys() != self._weights.keys():
            raise ConfigError(
                f"average.start={self._config.start}: the run is at step {step} without an average; give "
                f"average.start={step}, or average.kind=none"
            )
        self.values = {name: values[name] for name in self._weights}

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Exchange the weights of the model and their average within the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.values.items():
            mean, weight = _local(average), _local(self._weights[name])
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
