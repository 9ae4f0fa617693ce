"""How long train.py takes to its first batch, beyond importing torch, and how much memory: for a large corpus.

    python tools/bench_startup.py experiment=small_cpu data.path=prepared/ende

Takes the settings of train.py.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import resource
import sys
import time

from xlmtrain.config.load import compose, user_errors
from xlmtrain.data.corpus import Dataset
from xlmtrain.data.loader import Loader


def main(argv: list[str]) -> None:
    """Open the data, make the first batch, print what that took."""
    config = compose("config", argv)
    start = time.monotonic()
    dataset = Dataset(config.data.path)
    loader = Loader(config, dataset)
    opened = time.monotonic()
    loader.make(0, loader.sampler.start())
    made = time.monotonic()
    tokens = sum(corpus.tokens for name, corpus in dataset.header.corpora.items() if name.startswith("train."))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(
        f"{tokens:,} tokens of training text: data set and loader {opened - start:.2f} s, first batch "
        f"{made - opened:.2f} s, {resident:,.0f} MB resident at most, libraries included"
    )


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
