"""How far a run has come: all that is neither a weight nor a moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from xlmtrain.data.sampling import SamplerState
from xlmtrain.errors import CheckpointError
from xlmtrain.objective import LanguageModel
from xlmtrain.train.sharding import share_of


@dataclass
class Progress:
    """Where a run stands after ``step`` optimizer steps.

    ``tokens``: positions trained on, padding left out. ``seconds``: time spent in steps. ``evaluated``: step of the
    last evaluation, -1 before the first. ``best``: value of the metric at its best, ``best_step`` when;
    ``without_best``: evaluations since. ``skipped``: steps that left the weights as they were. ``losses``: of the last
    steps, as :class:`~xlmtrain.metrics.spikes.SpikeDetector` keeps them; ``spikes``: how many were far above.
    """

    cursors: SamplerState
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    evaluated: int = -1
    best: float | None = None
    best_step: int = -1
    without_best: int = 0
    losses: list[float] = field(default_factory=list)
    spikes: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Progress:
        """From what :meth:`to_json` gave."""
        cursors = {name: (epoch, index) for name, (epoch, index) in value["cursors"].items()}
        return cls(**{**value, "cursors": cursors})


_GROUP_STEP = "group_step"


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: LanguageModel) -> dict[str, torch.Tensor]:
    """The optimizer's state as ``<what>.<parameter name>`` -> tensor."""
    tensors = {
        f"{what}.{name}": value
        for name, parameter in model.named_parameters()
        for what, value in optimizer.state.get(parameter, {}).items()
    }
    if "step" in optimizer.param_groups[0]:  # apex counts steps there, torch beside each parameter's moments
        tensors[_GROUP_STEP] = torch.tensor(optimizer.param_groups[0]["step"])
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: LanguageModel, tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what :func:`optimizer_tensors` gave. Raises CheckpointError if it is not this model's."""
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        if key == _GROUP_STEP:
            for group in optimizer.param_groups:
                group["step"] = int(tensor)
            continue
        what, _, name = key.partition(".")
        if name not in parameters:
            raise CheckpointError(f"the optimizer's state names {name}, which the model does not have")
        optimizer.state[parameters[name]][what] = share_of(tensor, parameters[name])
