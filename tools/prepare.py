"""Prepare raw text: write ids to disk, with BPE codes and a vocabulary that are learned or given.

    python tools/prepare.py output=prepared/ende 'train.mono={en: [news/*.en.xz], de: [news/*.de.xz]}' \\
        'train.pairs={de-en: ["wmt/*.{lang}.gz"]}' 'valid.mono={en: [dev/*.en], de: [dev/*.de]}' bpe.merges=60000

Every setting is explained in xlmtrain/config/prepare.py; the result is described in xlmtrain/data/format.py.
"""

import signal
import sys

from xlmtrain.config.load import hydra_main
from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.prepare.pipeline import prepare


def main(config: PrepareConfig) -> None:
    # SIGTERM unwinds like Ctrl-C, so that unfinished artifacts are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(prepare(config))
    print(f"prepared: {config.output}")


if __name__ == "__main__":
    hydra_main("prepare", main)
