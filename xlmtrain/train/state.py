"""The state of a run besides its weights, and the optimizer's state by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from xlmtrain.data.sampling import SamplerState
from xlmtrain.errors import CheckpointError
from xlmtrain.train.parallel import shard_like


@dataclass(kw_only=True)
class SelectionState:
    """Progress of a training and its best evaluation so far.

    ``seconds``: time spent in steps. ``evaluated``: step of the last evaluation, -1 before the first. ``best``: best
    value of the selection metric, at step ``best_step``; ``without_best``: evaluations since then.
    """

    step: int = 0
    seconds: float = 0.0
    evaluated: int = -1
    best: float | None = None
    best_step: int = -1
    without_best: int = 0

    def add_evaluation(self, value: float, rising: bool) -> bool:
        """Record an evaluation at the current step. Returns True if ``value`` is the best so far.

        ``rising``: larger is better.
        """
        self.evaluated = self.step
        improved = self.best is None or (value > self.best if rising else value < self.best)
        if improved:
            self.best, self.best_step, self.without_best = value, self.step, 0
        else:
            self.without_best += 1
        return improved

    def out_of_patience(self, patience: int) -> bool:
        """Return True after ``patience`` evaluations in a row without a new best; 0 is endless patience."""
        return 0 < patience <= self.without_best

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        return asdict(self)


@dataclass
class TrainState(SelectionState):
    """State of a pretraining run after ``step`` optimizer steps.

    ``cursors``: position in the data. ``tokens``: positions trained on, without padding. ``skipped``: steps that left
    the weights unchanged. ``losses``: of the last steps, as :class:`~xlmtrain.metrics.spikes.SpikeDetector` keeps them;
    ``spikes``: number of loss spikes.
    """

    cursors: SamplerState
    tokens: int = 0
    skipped: int = 0
    losses: list[float] = field(default_factory=list)
    spikes: int = 0

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrainState:
        """Return the state that :meth:`to_json` gave."""
        cursors = {name: (epoch, number) for name, (epoch, number) in value["cursors"].items()}
        return cls(**{**value, "cursors": cursors})


_GROUP_STEP = "group_step"


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the optimizer's state as ``<kind>.<parameter name>`` -> tensor."""
    tensors = {
        f"{kind}.{name}": value
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }
    if "step" in optimizer.param_groups[0]:  # apex counts steps per group, torch per parameter
        tensors[_GROUP_STEP] = torch.tensor(optimizer.param_groups[0]["step"])
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, torch.Tensor]
) -> None:
    """Restore the state that :func:`optimizer_tensors` gave. Raises CheckpointError if it is another model's."""
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        if key == _GROUP_STEP:
            for group in optimizer.param_groups:
                group["step"] = int(tensor)
            continue
        kind, _, name = key.partition(".")
        if name not in parameters:
            raise CheckpointError(f"the optimizer's state names {name}, which the model does not have")
        optimizer.state[parameters[name]][kind] = shard_like(tensor, parameters[name])
