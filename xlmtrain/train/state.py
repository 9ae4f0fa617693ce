"""The state of a run besides its weights and optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from xlmtrain.config.old_names import current_progress
from xlmtrain.data.sampling import SamplerState
from xlmtrain.errors import CheckpointError, damage_as
from xlmtrain.metrics.energy import DeviceEnergy
from xlmtrain.runtime.typed_json import typed

T = TypeVar("T", bound="SelectionState")


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

    @classmethod
    def from_json(cls: type[T], value: Any) -> T:
        """Return the state that a checkpoint has. Raises CheckpointError if it is damaged."""
        with damage_as(CheckpointError, "the progress in state.json is damaged"):
            return typed(cls, current_progress(value))

    def add_evaluation(self, value: float, rising: bool) -> bool:
        """Record an evaluation; return True if ``value`` is the best so far. ``rising``: larger is better."""
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


@dataclass
class TrainState(SelectionState):
    """State of a pretraining run after ``step`` optimizer steps.

    ``sampler_state``: position in the data. ``tokens``: positions trained on, without padding. ``skipped``: steps that
    left the weights unchanged. ``losses``: of the last steps, as :class:`~xlmtrain.metrics.spikes.SpikeDetector` keeps
    them; ``spikes``: number of loss spikes. ``energy``: used up to the last checkpoint, by device.
    """

    sampler_state: SamplerState
    tokens: int = 0
    skipped: int = 0
    losses: list[float] = field(default_factory=list)
    spikes: int = 0
    energy: list[DeviceEnergy] = field(default_factory=list)
