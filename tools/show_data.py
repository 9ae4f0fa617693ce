"""Print the training batches of a step as text: masked tokens, their languages and positions.

    python tools/show_data.py experiment=quickstart                   the first global batch, two rows of each draw
    python tools/show_data.py experiment=quickstart step=7 rows=4     another step, more rows

Takes the settings of train.py.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import dataclass

from xlmtrain.config.load import arguments, compose, user_errors
from xlmtrain.data.corpus import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.show import describe_batch
from xlmtrain.errors import ConfigError


@dataclass
class ShowData:
    """The settings of this tool; every other argument is a setting of train.py."""

    step: int = 0
    """Step of training, from 0."""

    rows: int = 2
    """Rows to show of each batch."""

    def __post_init__(self) -> None:
        if self.step < 0 or self.rows < 1:
            raise ConfigError("step is 0 or more, rows 1 or more")


def main(argv: list[str]) -> None:
    """Print one global batch."""
    options, overrides = arguments(ShowData, argv, more=True)
    config = compose("config", overrides)
    dataset = Dataset(config.data.path)
    loader = Loader(config, dataset)
    cursors = loader.sampler.start()
    for step in range(options.step):
        _, cursors = loader.sampler.plan(step, cursors)
    for batch in loader.make(options.step, cursors).batches:
        print("\n".join(describe_batch(batch, dataset.vocab, dataset.languages, options.rows)))


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
