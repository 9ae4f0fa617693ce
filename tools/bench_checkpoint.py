"""How long training stands still for a checkpoint, and what writing it beside the steps costs.

    python tools/bench_checkpoint.py experiment=mlm_ende_1024 directory=/data/somewhere

Takes the settings of train.py, for the model's; ``directory`` is where the checkpoints are written to, and deleted.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from xlmtrain.config.load import arguments, compose, user_errors
from xlmtrain.errors import ConfigError
from xlmtrain.objective import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.train.background import BackgroundSaver
from xlmtrain.train.checkpoint import CheckpointStore
from xlmtrain.train.state import optimizer_tensors


@dataclass
class BenchCheckpoint:
    """The settings of this tool; every other argument is a setting of train.py."""

    directory: str | None = None
    """Where to write; null: where temporary files go."""

    vocab_size: int = 64699
    """Entries of the vocabulary; the default is the released model's."""

    interval: float = 600.0
    """Seconds between checkpoints."""

    saves: int = 5
    """How many to write, 2 or more. The first one makes the copies' memory, and is told apart."""

    def __post_init__(self) -> None:
        if self.saves < 2 or self.interval <= 0 or self.vocab_size < 1:
            raise ConfigError("saves is 2 or more, interval and vocab_size above 0")


def main(argv: list[str]) -> None:
    """Write checkpoints one after the other, print what each takes."""
    options, overrides = arguments(BenchCheckpoint, argv, more=True)
    config = compose("config", overrides)
    model = LanguageModel(config.model, options.vocab_size, 2)
    optimizer = make_optimizer(config.optim, model, torch.device("cpu"))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    stalls, walls, costs = [], [], []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        saver = BackgroundSaver(CheckpointStore(Path(directory), keep_last=1))
        for step in range(options.saves):
            begun, cost = time.monotonic(), time.process_time()
            saver.save(step, model.state_dict(), optimizer_tensors(optimizer, model), {}, None)
            stalls.append(time.monotonic() - begun)
            saver.settle()
            walls.append(time.monotonic() - begun)
            costs.append(time.process_time() - cost)
        size = sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())
        saver.close()
    print(
        f"{size / 1e6:,.0f} MB: training stands still for {median(stalls[1:]):.2f} s ({stalls[0]:.2f} s the first "
        f"time), {median(stalls[1:]) / options.interval:.2%} of {options.interval:.0f} s; on the disk after "
        f"{median(walls[1:]):.1f} s, which cost {median(costs[1:]):.1f} CPU-s"
    )


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
