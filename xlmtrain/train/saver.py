"""Save a run: every process takes part, the main one writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from xlmtrain.errors import CheckpointError
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.async_checkpoint import AsyncCheckpointer, Best
from xlmtrain.train.parallel import full_state_dict
from xlmtrain.train.state import SelectionState, optimizer_tensors


@dataclass
class RunSaver:
    """Saves weights, optimizer, loss scale and state. All methods but ``close`` are collective.

    ``checkpointer``: None on all processes but the main one. ``metric``: name of the selection metric.
    ``still_alive``: called every second while the processes wait for the disk.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    state: SelectionState
    metric: str
    checkpointer: AsyncCheckpointer | None
    distributed: Distributed
    still_alive: Callable[[], None]
    _saved: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._saved = self._version()

    def _version(self) -> tuple[int, int]:
        """Return (step, last evaluated step), which identifies what a checkpoint would contain."""
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
    def has_failed(self) -> bool:
        """True on the main process if :meth:`wait` is going to raise."""
        return self.checkpointer is not None and self.checkpointer.has_failed()

    def update_best(self) -> None:
        """Write ``best.json`` again, which an interrupted start may have left out of date."""
        if self.checkpointer is not None:
            self.checkpointer.update_best(self._best())

    def save(self) -> None:
        """Copy the run and start to write its checkpoint, after the one before is on the disk."""
        self.wait()
        weights = full_state_dict(self.model.state_dict(), self.distributed.is_main)
        optimizer = full_state_dict(optimizer_tensors(self.optimizer, self.model), self.distributed.is_main)
        if self.checkpointer is not None:
            state = {"progress": self.state.to_json(), "scaler": self.scaler.state_dict()}
            self.checkpointer.save(self.state.step, weights, optimizer, state, self._best())
        self._saved = self._version()

    def wait(self) -> None:
        """Wait until the disk has what is being written. Raises the error that ended the checkpointer, on all ranks.

        The main process answers every second, so no time limit of a collective is reached.
        """
        while self.distributed.any(self.checkpointer is not None and self.checkpointer.is_saving(patience=1.0)):
            self.still_alive()
        if self.distributed.any(self.has_failed):
            if self.checkpointer is not None:
                self.checkpointer.wait()
            raise CheckpointError("the main process cannot write checkpoints; its message gives the reason")

    def finish(self) -> None:
        """Wait for the last checkpoint. Raises CheckpointError if it could not be written."""
        self.wait()
        if self.checkpointer is not None:
            self.checkpointer.finalize()

    def close(self) -> None:
        """Wait for the writing thread, also after an error."""
        if self.checkpointer is not None:
            self.checkpointer.close()

    def _best(self) -> Best | None:
        state = self.state
        return None if state.best is None else Best(state.best_step, self.metric, state.best)
