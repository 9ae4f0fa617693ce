"""How long training stands still for a checkpoint, and what writing it beside the steps costs.

    python tools/bench_checkpoint.py experiment=mlm_ende_1024 directory=/data/somewhere

Takes the settings of train.py, for the model's; ``directory`` is where the checkpoints are written to, and deleted.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import dataclass

import torch
from contest.saving import INTERVAL, measure_saving

from xlmtrain.config.load import compose, parse_args, user_errors
from xlmtrain.errors import ConfigError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer


@dataclass
class BenchCheckpoint:
    """The settings of this tool; every other argument is a setting of train.py."""

    directory: str | None = None
    """Where to write; null: where temporary files go."""

    vocab_size: int = 64699
    """Entries of the vocabulary; the default is the released model's."""

    interval: float = INTERVAL
    """Seconds between checkpoints."""

    saves: int = 5
    """How many to write, 2 or more. The first one makes the copies' memory, and is told apart."""

    def __post_init__(self) -> None:
        if self.saves < 2 or self.interval <= 0 or self.vocab_size < 1:
            raise ConfigError("saves is 2 or more, interval and vocab_size above 0")


def main(argv: list[str]) -> None:
    """Write checkpoints one after the other, print what each takes."""
    options, overrides = parse_args(BenchCheckpoint, argv, more=True)
    config = compose("config", overrides)
    model = LanguageModel(config.model, options.vocab_size, 2)
    optimizer = make_optimizer(config.optim, model, torch.device("cpu"))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    saving = measure_saving(model, optimizer, options.saves, options.directory)
    print(
        f"{saving.megabytes:,.0f} MB: training stands still for {saving.stall:.2f} s ({saving.first_stall:.2f} s the "
        f"first time), {saving.stall / options.interval:.2%} of {options.interval:.0f} s; on the disk after "
        f"{saving.wall:.1f} s, which cost {saving.cpu:.1f} CPU-s"
    )


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
