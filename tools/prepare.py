"""Prepare raw text: write ids to disk, with BPE codes and a vocabulary that are learned or given.

    python tools/prepare.py my_corpus.yaml
    python tools/prepare.py output=prepared/ende 'train.mono={en: [news/*.en.xz], de: [news/*.de.xz]}' \\
        'train.pairs={de-en: ["wmt/*.{lang}.gz"]}' 'valid.mono={en: [dev/*.en], de: [dev/*.de]}' bpe.merges=60000

Every setting is explained in xlmtrain/config/prepare.py; the result is described in xlmtrain/data/format.py.
"""

import signal
import sys

from xlmtrain.config.load import hydra_main
from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.diagnostics.data_quality import statistics_warnings
from xlmtrain.diagnostics.finding import print_warnings
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.statistics import Statistics


def main(config: PrepareConfig) -> None:
    # SIGTERM unwinds like Ctrl-C, so that unfinished artifacts are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    statistics = prepare(config, warn)
    print(statistics)
    warn(statistics)
    print(f"prepared: {config.output}")


def warn(statistics: Statistics) -> None:
    """Print the warnings about the text."""
    print_warnings(statistics_warnings(statistics))


if __name__ == "__main__":
    hydra_main("prepare", main)
