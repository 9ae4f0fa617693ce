"""Run one share of the tasks of a preparation: an array task of Slurm, for ``tools/prepare.py executor=slurm``.

python tools/prepare_shards.py tasks=prepared/.ende.partial/tokenize.tasks.json share=3 of=100
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.errors import ConfigError
from xlmtrain.prepare.executors import run_share


@dataclass
class Share:
    """The settings of this tool."""

    tasks: str = "???"
    """List of tasks, in the work directory of a running preparation."""

    share: int = 0
    """Index of the share to run, from 0."""

    of: int = 1
    """Number of shares."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < self.of:
            raise ConfigError(f"share={self.share} is not between 0 and of={self.of}")


def main(argv: list[str]) -> None:
    """Run the tasks one after another."""
    options, _ = parse_args(Share, argv)
    for key in run_share(Path(options.tasks), options.share, options.of):
        print(f"done: {key}", flush=True)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
