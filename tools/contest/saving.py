"""What a checkpoint costs: how long training stands still for it, and writing it beside the steps."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from xlmtrain.objective import LanguageModel
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.state import optimizer_tensors

INTERVAL = 600.0
"""Seconds between checkpoints that their share is told for."""


@dataclass(frozen=True)
class Saving:
    """Of a checkpoint of ``megabytes``, medians in seconds: ``stall``, training stands still; ``first_stall``, at the
    first one, which makes the memory of the copies; ``wall``, until it is on the disk; ``cpu``, of all threads."""

    megabytes: float
    stall: float
    first_stall: float
    wall: float
    cpu: float


def measure_saving(
    model: LanguageModel, optimizer: torch.optim.Optimizer, saves: int, directory: str | None = None
) -> Saving:
    """Write so many checkpoints, 2 or more, one after the other, to a place within ``directory`` that is deleted."""
    stalls, walls, costs = [], [], []
    with tempfile.TemporaryDirectory(dir=directory) as place:
        saver = AsyncCheckpointer(CheckpointManager(Path(place), keep_last=1))
        for step in range(saves):
            begun, cost = time.monotonic(), time.process_time()
            saver.save(step, model.state_dict(), optimizer_tensors(optimizer, model), {}, None)
            stalls.append(time.monotonic() - begun)
            saver.wait()
            walls.append(time.monotonic() - begun)
            costs.append(time.process_time() - cost)
        size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
        saver.close()
    return Saving(size / 1e6, median(stalls[1:]), stalls[0], median(walls[1:]), median(costs[1:]))
