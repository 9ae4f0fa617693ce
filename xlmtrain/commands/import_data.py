"""Convert binarized data of the original XLM to a prepared data set.

xlmtrain import data=data/processed/de-en output=prepared/ende codes=codes_ende
"""

from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import parse_options
from xlmtrain.config.prepare import TextConfig
from xlmtrain.interop.xlm.data import import_data
from xlmtrain.runtime.output_paths import check_output_path
from xlmtrain.runtime.program import exit_on_sigterm


@dataclass
class ImportDataOptions:
    """The settings of this command."""

    data: str = "???"
    """Directory with the original XLM's files, like ``train.de.pth`` and ``valid.de-en.de.pth``."""

    output: str = "???"
    """Directory to write. It appears only when it is complete."""

    codes: str | None = None
    """The BPE codes that the data was made with. Needed to use the model on raw text, not for training."""

    lowercase: bool = False
    """The data's text was lower-cased, as for the XNLI models."""

    remove_accents: bool = False
    """Accents were stripped from the data's text, as for the XNLI models."""


def main(argv: list[str]) -> None:
    """Import the data and print the size of each corpus."""
    options = parse_options(ImportDataOptions, argv)
    exit_on_sigterm()
    check_output_path("output", options.output)
    codes = Path(options.codes) if options.codes is not None else None
    text = TextConfig(lowercase=options.lowercase, remove_accents=options.remove_accents)
    for corpus in import_data(Path(options.data), Path(options.output), codes, text):
        counts = f"{corpus.sentences:,} sentences, {corpus.tokens:,} tokens"
        print(f"{corpus.name}: {counts}, {corpus.unknown_rate:.3%} unknown")
    print(f"imported: {options.output}")
