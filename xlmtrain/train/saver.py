"""Save and resume a run: every process takes part, the main one writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from xlmtrain.errors import CheckpointError, damage_as
from xlmtrain.model.language_model import check_state_dict
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.typed_json import typed
from xlmtrain.train.async_checkpoint import AsyncCheckpointer, Best
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import AVERAGE, STATE, Tensors, averaged_weights, read_checkpoint
from xlmtrain.train.parallel import shard_like
from xlmtrain.train.state import SelectionState
from xlmtrain.train.step import OptimizerStep

log = logging.getLogger(__name__)

_GROUP_STEP = "group_step"
SavedTranslation = tuple[int, int, list[int], list[int]]
"""Language, language to translate into, ids of a sentence and of its translation."""


@dataclass
class RunSaver:
    """Saves weights, optimizer, loss scale and ``state``. Collective. ``metric``: name of the selection metric."""

    optimizer_step: OptimizerStep
    state: SelectionState
    metric: str
    checkpointer: AsyncCheckpointer

    def __post_init__(self) -> None:
        self._saved = self._version()

    def _version(self) -> tuple[int, int]:
        """Return what identifies the content of a checkpoint."""
        return self.state.step, self.state.evaluated

    @property
    def is_current(self) -> bool:
        """True if the newest checkpoint holds the present state."""
        return self._saved == self._version()

    @property
    def saved_step(self) -> int:
        """Step of the newest checkpoint."""
        return self._saved[0]

    @property
    def best(self) -> Best | None:
        """The best evaluation so far, None before the first."""
        state = self.state
        return None if state.best is None else Best(state.best_step, self.metric, state.best)

    def save(self) -> None:
        """Copy the run and start to write its checkpoint, after the one before is on the disk."""
        self.checkpointer.wait()
        step = self.optimizer_step
        weights, optimizer = step.model.state_dict(), optimizer_tensors(step.optimizer, step.model)
        if step.average is not None:
            optimizer |= {AVERAGE + name: value for name, value in step.average.values.items()}
        state = {
            "progress": asdict(self.state),
            "scaler": step.scaler.state_dict(),
            "back_translations": gather_translations(step),
        }
        self.checkpointer.save(self.state.step, weights, optimizer, state, self.best)
        self._saved = self._version()


def resume(
    store: CheckpointManager, step: OptimizerStep, report_progress: Callable[[], None] = lambda: None
) -> dict[str, Any] | None:
    """Load weights, optimizer state and loss scale. Returns the saved progress, or None without a checkpoint.

    Every process reads for itself, from shared storage; one of each host verifies. ``report_progress``: called every
    second meanwhile. Raises CheckpointError if the checkpoint does not fit the model, ConfigError if the hosts did not
    find the same one.
    """
    failpoint("resume")
    distributed = step.distributed
    verifies = distributed.is_first_on_host
    found = distributed.run_long_on_all(lambda: store.newest_intact() if verifies else None, report_progress)
    newest: int | None = json.loads(distributed.all_gather_text(json.dumps(found))[0])
    mine = {"newest step": found if verifies else newest}
    distributed.assert_same(mine, "checkpoints (the run directory must be on shared storage)")
    if newest is None:
        return None
    checkpoint = distributed.run_on_all(lambda: read_checkpoint(store.path(newest), verified=True))
    check_state_dict(step.model, checkpoint.model, str(checkpoint.path))
    with torch.no_grad():
        for name, weight in step.model.state_dict().items():
            weight.copy_(shard_like(checkpoint.model[name], weight))
    average = averaged_weights(checkpoint)
    others = {name: value for name, value in checkpoint.optimizer.items() if not name.startswith(AVERAGE)}
    load_optimizer_tensors(step.optimizer, step.model, others)
    with damage_as(CheckpointError, f"{checkpoint.path / STATE}: damaged"):
        progress: dict[str, Any] = checkpoint.state["progress"]
        reached = typed(int, progress["step"], "step")
        if step.scaler.is_enabled() and checkpoint.state["scaler"]:  # empty unless the run had fp16 before
            window = step.scaler.get_growth_interval()
            step.scaler.load_state_dict(checkpoint.state["scaler"])
            step.scaler.set_growth_interval(window)  # a setting, which may have changed
        by_rank = typed(list[list[SavedTranslation]], checkpoint.state.get("back_translations", []))
    if len(by_rank) == distributed.world_size:  # two processes may have translated a sentence differently, in bf16
        by_rank = [by_rank[distributed.rank]]
    step.translations |= {
        (language, target, tuple(ids)): np.array(found) for own in by_rank for language, target, ids, found in own
    }
    if step.average is not None:
        weights = dict(step.model.named_parameters())
        step.average.load({name: shard_like(value, weights[name]) for name, value in average.items()}, reached)
    if distributed.is_main:
        log.info("resumed from %s", checkpoint.path)
    return progress


def gather_translations(step: OptimizerStep) -> list[list[SavedTranslation]]:
    """Return, by rank, the translations that steps share. Collective."""
    mine = [(*key, translation.tolist()) for key, translation in step.translations.items()]
    return list(map(json.loads, step.distributed.all_gather_text(json.dumps(mine))))


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> Tensors:
    """Return the optimizer's state as ``<kind>.<parameter name>`` -> tensor."""
    tensors = {
        f"{kind}.{name}": value
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }
    if "step" in optimizer.param_groups[0]:  # apex counts steps per group, torch per parameter
        tensors[_GROUP_STEP] = torch.tensor(optimizer.param_groups[0]["step"])
    return tensors


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Tensors) -> None:
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
        if tensor.dim() and tensor.shape != parameters[name].shape:
            raise CheckpointError(
                f"the optimizer's state of {name} is {tuple(tensor.shape)}; the checkpoint is damaged"
            )
        optimizer.state[parameters[name]][kind] = shard_like(tensor, parameters[name])
