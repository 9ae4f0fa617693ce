"""Measure the time of xlmtrain train to its first batch, apart from importing PyTorch, and the speed of making batches.

    python -m benchmarks.startup experiment=small_cpu data.path=prepared/ende
    python -m benchmarks.startup experiment=mlm_tlm_ende_1024 data.path=prepared/ende data.mlm.de=0 data.mlm.en=0

Takes the settings of xlmtrain train.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import resource
import sys
import time

from xlmtrain.config.load import hydra_main
from xlmtrain.config.schema import Config
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader

CPU_SECONDS = 3.0


def main(config: Config) -> None:
    """Open the data, make batches, and print times and memory."""
    start = time.monotonic()
    dataset = Dataset(config.data.path)
    loader = Loader(config, dataset)
    opened = time.monotonic()
    step = loader.make(0, loader.sampler.initial_state())
    made = time.monotonic()
    tokens = sum(corpus.tokens for name, corpus in dataset.header.corpora.items() if name.startswith("train."))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(
        f"{tokens:,} tokens of training text: data set and loader {opened - start:.2f} s, first batch "
        f"{made - opened:.2f} s, {resident:,.0f} MB peak resident memory, libraries included"
    )
    begin, unpadded, positions = time.process_time(), 0.0, 0.0
    while time.process_time() - begin < CPU_SECONDS:
        step = loader.make(step.step + 1, step.sampler_state)
        unpadded, positions = unpadded + step.tokens, positions + step.padded_tokens
    rate = unpadded / (time.process_time() - begin) / 1e6
    print(f"batches: {rate:.1f} million tokens per CPU-second, {unpadded / positions:.2%} not padding")


if __name__ == "__main__":
    hydra_main("config", main, sys.argv[1:])
