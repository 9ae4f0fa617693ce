"""Look at a prepared data set, or at the training batches of a step.

    python tools/show_data.py data=prepared/ende                      sizes, sentences, lengths, words, what was dropped
    python tools/show_data.py experiment=quickstart                   the first global batch, two rows of each draw
    python tools/show_data.py experiment=quickstart step=7 rows=4     another step, more rows

Batches are shown as the model sees them: masked tokens, their languages and positions. They take the settings of
train.py; beside those, data=... is not a data set, but theirs, too.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import shutil
import sys
from dataclasses import dataclass

from xlmtrain.config.load import compose, parse_args, user_errors
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.inspect import survey
from xlmtrain.data.loader import Loader
from xlmtrain.data.show import describe_batch
from xlmtrain.diagnostics.data_quality import quality_warnings
from xlmtrain.diagnostics.finding import print_warnings
from xlmtrain.errors import ConfigError


@dataclass
class ShowData:
    """The settings of this tool; every other argument is a setting of train.py."""

    data: str | None = None
    """Directory made by tools/prepare.py or tools/import_data.py to look at."""

    rows: int = 2
    """Rows to show of each batch, or sentences of each corpus."""

    words: int = 30
    """How many of the most frequent words, and of the most frequent unknown ones, to show of each corpus."""

    step: int = 0
    """Step of training, from 0."""

    def __post_init__(self) -> None:
        if self.step < 0 or self.rows < 1 or self.words < 1:
            raise ConfigError("step is 0 or more, rows and words 1 or more")


def main(argv: list[str]) -> None:
    """Print a data set, or one global batch."""
    options, overrides = parse_args(ShowData, argv, more=True)
    if options.data is not None and not overrides:
        dataset = Dataset(options.data)
        print("\n".join(survey(dataset, options.rows, options.words, shutil.get_terminal_size().columns)))
        if not print_warnings(quality_warnings(dataset)):
            print("no warnings")
        return
    chosen = [f"data={options.data}"] if options.data is not None else []
    config = compose("config", [*overrides, *chosen])
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
