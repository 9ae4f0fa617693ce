"""Run one share of the tasks of a preparation: an array task of Slurm, for ``xlmtrain prepare executor=slurm``.

xlmtrain prepare-shards tasks=prepared/.ende.partial/tokenize.tasks.json share=3 of=100
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import parse_options
from xlmtrain.config.validate import CheckedSettings
from xlmtrain.prepare.task_runner import run_share


@dataclass
class PrepareShardsOptions(CheckedSettings):
    """The settings of this command."""

    tasks: str = "???"
    """List of tasks, in the work directory of a running preparation."""

    share: int = 0
    """Index of the share to run, from 0."""

    of: int = 1
    """Number of shares."""

    def problems(self) -> Iterator[str]:
        if not 0 <= self.share < self.of:
            yield f"share: {self.share} is not from 0 to below of={self.of}"


def main(argv: list[str]) -> None:
    """Run the tasks one after another."""
    options = parse_options(PrepareShardsOptions, argv)
    for key in run_share(Path(options.tasks), options.share, options.of):
        print(f"done: {key}", flush=True)
