"""Download corpora, and the codes and vocabulary of the released model.

    python tools/download.py                                              # what there is, with licences
    python tools/download.py output=data/raw europarl-v10 newstest2013 'news-crawl-de-20*' codes_ende vocab_ende

Names may be patterns. The same command again goes on where it stopped, and downloads nothing twice. Text comes as
NAME.LANGUAGE.gz, one sentence a line; the last line printed is the command that prepares it. Behind a proxy, set
https_proxy. The licences are the publishers': read them before you use a corpus.
"""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.download.catalogue import Corpus, read_catalogue, select
from xlmtrain.download.client import Client
from xlmtrain.download.corpora import download, prepare_command
from xlmtrain.errors import ConfigError


@dataclass
class DownloadOptions:
    """The settings of this tool; every other argument is the name of a corpus, or a pattern of names."""

    output: str = "data/raw"
    """Directory for the text."""

    parallel: int = 3
    """How many files to download at a time, at most two of them from one host."""

    workers: int = 0
    """Processes that read Wikipedia; 0 takes every core."""

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= 16:
            raise ConfigError(f"parallel: {self.parallel} is not between 1 and 16")
        if self.workers < 0:
            raise ConfigError(f"workers: {self.workers} is negative")


def line(corpus: Corpus) -> str:
    """A corpus in the list."""
    size = sum(file.size or 0 for file in corpus.files)
    shown = f"{size / 1e6:,.0f} MB" if size else "?"
    return f"{corpus.name:24} {'-'.join(corpus.languages):6} {corpus.split or '':6} {shown:>9}  {corpus.licence}"


def main(argv: list[str]) -> None:
    """List the catalogue, or download what is named."""
    options, names = parse_args(DownloadOptions, argv)
    catalogue = read_catalogue()
    corpora = select(catalogue, names) if names else list(catalogue.values())
    print("\n".join(map(line, corpora)))
    if not names:
        return
    # A polite kill unwinds like Ctrl-C: what has come stays, and the next call goes on from there.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    output = Path(options.output)
    download(corpora, output, Client(), options.parallel, options.workers)
    if any(corpus.languages for corpus in corpora):
        print(f"\nto prepare it:\n{prepare_command(corpora, output)}")


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
