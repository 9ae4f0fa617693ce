"""Download datasets, and the codes and vocabulary of the released model.

    xlmtrain download                                              # list them, with licences
    xlmtrain download output=data/raw europarl-v10 newstest2013 'news-crawl-de-20*' codes_ende vocab_ende

Names may be patterns. The same command again goes on where it stopped, and downloads nothing twice. Text comes as
NAME.LANGUAGE.gz, one sentence a line; the last line printed is the command that prepares it. Behind a proxy, set
https_proxy. The licences are the publishers': read them before you use a dataset.
"""

from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import parse_args
from xlmtrain.config.validate import NOT_NEGATIVE, CheckedSettings, ranged
from xlmtrain.download.catalogue import DatasetEntry, read_catalogue, select
from xlmtrain.download.client import Client
from xlmtrain.download.job import download, prepare_command
from xlmtrain.runtime.output_paths import check_output_path
from xlmtrain.runtime.program import exit_on_sigterm


@dataclass
class DownloadOptions(CheckedSettings):
    """Settings of this command; every other argument is the name of a dataset, or a pattern of names."""

    output: str = "data/raw"
    """Directory for the text."""

    workers: int = ranged(0, NOT_NEGATIVE)
    """Processes that read Wikipedia; 0 takes every core."""


def line(entry: DatasetEntry) -> str:
    """Return a line of the list."""
    shown = f"{entry.file.size / 1e6:,.0f} MB" if entry.file.size else "?"
    return f"{entry.name:24} {'-'.join(entry.languages):6} {entry.split or '':6} {shown:>9}  {entry.licence}"


def main(argv: list[str]) -> None:
    """List the catalogue, or download what is named."""
    options, names = parse_args(DownloadOptions, argv)
    catalogue = read_catalogue()
    entries = select(catalogue, names) if names else list(catalogue.values())
    print("\n".join(map(line, entries)))
    if not names:
        return
    exit_on_sigterm()
    check_output_path("output", options.output)
    output = Path(options.output)
    download(entries, output, Client(), options.workers)
    if any(entry.languages for entry in entries):
        print(f"\nto prepare it:\n{prepare_command(entries, output)}")
