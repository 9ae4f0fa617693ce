"""Prepare raw text: write ids to disk, with BPE codes and a vocabulary that are learned or given.

    xlmtrain prepare my_corpus.yaml
    xlmtrain prepare output=prepared/ende 'train.mono={en: [news/*.en.xz], de: [news/*.de.xz]}' \\
        'train.pairs={de-en: ["wmt/*.{lang}.gz"]}' 'valid.mono={en: [dev/*.en], de: [dev/*.de]}' bpe.merges=60000
    xlmtrain prepare corpus=sample     the sample corpus, into prepared/sample
    xlmtrain prepare --help            the settings and their values

The result is described in xlmtrain/data/format.py.
"""

import shutil
from pathlib import Path

from xlmtrain.config.load import hydra_main
from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.diagnostics.finding import print_warnings
from xlmtrain.diagnostics.statistics_warnings import statistics_warnings
from xlmtrain.prepare.output import check_output
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.statistics import Statistics
from xlmtrain.resources import resource
from xlmtrain.runtime.output_paths import new_file
from xlmtrain.runtime.program import exit_on_sigterm

SAMPLE = "data/sample"
"""The directory in which the preset corpus=sample looks for its text."""


def main(argv: list[str]) -> None:
    """Prepare text with the settings of the command line. The sample corpus is copied to where its preset looks."""

    def run_with_sample(config: PrepareConfig) -> None:
        if "corpus=sample" in argv:
            check_output(config, [])
            copy_sample(Path(SAMPLE))
        run(config)

    hydra_main("prepare", run_with_sample, argv)


def copy_sample(directory: Path) -> None:
    """Copy the sample corpus to ``directory`` and say so, unless there is something of that name."""
    if not directory.exists():
        with new_file(directory) as partial:
            shutil.copytree(resource("data/sample"), partial)
        print(f"{directory}: the sample corpus")


def run(config: PrepareConfig) -> None:
    """Prepare the text, and print sizes and warnings."""
    exit_on_sigterm()
    statistics = prepare(config, warn)
    print(statistics)
    warn(statistics)
    print(f"prepared: {config.output}")


def warn(statistics: Statistics) -> None:
    """Print the warnings about the text."""
    print_warnings(statistics_warnings(statistics))
