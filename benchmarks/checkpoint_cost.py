"""Measure how long training stops for a checkpoint, and what writing it beside the steps costs.

    python -m benchmarks.checkpoint_cost experiment=mlm_ende_1024 directory=/data/somewhere

Takes the settings of xlmtrain train, which give the model. Checkpoints are written below ``directory`` and removed.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from xlmtrain.config.load import compose, parse_args
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.program import user_errors
from xlmtrain.train.async_checkpoint import AsyncCheckpointer
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.saver import optimizer_tensors

INTERVAL_SECONDS = 600.0
"""Time between two checkpoints, by default."""


@dataclass
class CheckpointCostOptions(CheckedSettings):
    """The settings of this program; every other argument is a setting of xlmtrain train."""

    directory: str | None = None
    """Where to write; null: the directory of temporary files."""

    vocab_size: int = ranged(64699, ABOVE_ZERO)
    """Entries of the vocabulary; the default is the released model's."""

    saves: int = 5
    """Checkpoints to write, at least 2. The first one allocates the copies and is reported apart."""

    def problems(self) -> Iterator[str]:
        """Yield values that cannot be."""
        if self.saves < 2:
            yield f"saves: {self.saves} is less than 2"
        if self.directory is not None and not os.access(self.directory, os.W_OK | os.X_OK):
            yield f"directory: {self.directory} is no directory that can be written to"


def main(argv: list[str]) -> None:
    """Write checkpoints one after the other and print the times."""
    options, overrides = parse_args(CheckpointCostOptions, argv, more=True)
    config = compose("config", overrides)
    model = LanguageModel(config.model, options.vocab_size, 2)
    optimizer = make_optimizer(config.optim, model, torch.device("cpu"))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    stalls, walls, costs = [], [], []
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        saver = AsyncCheckpointer(CheckpointManager(Path(place), keep_last=1), Distributed(0, 1, torch.device("cpu")))
        for step in range(options.saves):
            begin, cost = time.monotonic(), time.process_time()
            saver.save(step, model.state_dict(), optimizer_tensors(optimizer, model), {}, None)
            stalls.append(time.monotonic() - begin)
            saver.wait()
            walls.append(time.monotonic() - begin)
            costs.append(time.process_time() - cost)
        size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
        saver.close()
    stall, cost = median(stalls[1:]), median(costs[1:])
    print(
        f"{size / 1e6:,.0f} MB: training stops for {stall:.2f} s ({stalls[0]:.2f} s the first time), "
        f"{stall / INTERVAL_SECONDS:.2%} of {INTERVAL_SECONDS:.0f} s; written after {median(walls[1:]):.1f} s, "
        f"which costs {cost:.1f} CPU-s, {cost / INTERVAL_SECONDS:.2%} of a core"
    )


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
