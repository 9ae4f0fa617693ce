"""Show a prepared data set, or the training batches of a step.

    xlmtrain show-data data=prepared/ende                      sizes, sentences, lengths, words, what was dropped
    xlmtrain show-data data=prepared/ende card=README.md       write its data card, for the Hugging Face Hub
    xlmtrain show-data experiment=quickstart                   the first global batch, two rows of each sub-batch
    xlmtrain show-data experiment=quickstart step=7 rows=4     another step, more rows

Batches are shown as the model reads them: masked tokens with their languages and positions. All settings of
xlmtrain train can be given with them; data=... then selects a group of those settings, as there.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from xlmtrain.config.load import compose, parse_args
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.inspect import corpus_sizes, describe_batch, describe_corpora
from xlmtrain.data.loader import Loader
from xlmtrain.diagnostics.data_quality import quality_warnings
from xlmtrain.diagnostics.finding import print_warnings
from xlmtrain.metrics.table import format_table
from xlmtrain.prepare.data_card import data_card
from xlmtrain.prepare.statistics import STATISTICS, Statistics
from xlmtrain.runtime.output_paths import new_file


@dataclass
class ShowDataOptions(CheckedSettings):
    """The settings of this command; other arguments are those of xlmtrain train (see its --help)."""

    data: str | None = None
    """Directory made by xlmtrain prepare or xlmtrain import."""

    rows: int = ranged(2, ABOVE_ZERO)
    """Rows to show of each batch, or sentences of each corpus."""

    words: int = ranged(30, ABOVE_ZERO)
    """Number of most frequent words, and of most frequent unknown words, to show of each corpus."""

    step: int = ranged(1, ABOVE_ZERO)
    """Step of training, from 1 as in the log."""

    card: str | None = None
    """File to write the data card to; it must not exist yet."""

    licences: dict[str, str] = field(default_factory=dict)
    """Licences for the data card, by the names of the raw files, e.g. ``{news.*: CC0}``; those of xlmtrain download are
    known."""

    def problems(self) -> Iterator[str]:
        """Yield values that exclude each other."""
        if self.card is not None and self.data is None:
            yield "card: describes prepared data; give data=... too"


def main(argv: list[str]) -> None:
    """Print a data set, or one global batch."""
    options, overrides = parse_args(ShowDataOptions, argv, more=True)
    if options.data is not None and not overrides:
        width = shutil.get_terminal_size().columns
        dataset = Dataset(options.data)
        if options.card is not None:
            statistics = Statistics.read(dataset.path / STATISTICS)
            found = map(str, quality_warnings(dataset))
            text = data_card(dataset.path.name, dataset.header, statistics, found, options.licences)
            with new_file(options.card) as path:
                path.write_text(text, encoding="utf-8")
            print(f"card: {options.card}")
            return
        print("\n".join(describe_dataset(dataset, options.rows, options.words, width)))
        if not print_warnings(quality_warnings(dataset)):
            print("no warnings")
        return
    chosen = [f"data={options.data}"] if options.data is not None else []
    config = compose("config", [*overrides, *chosen])
    dataset = Dataset(config.data.path)
    loader = Loader(config, dataset)
    state = loader.sampler.initial_state()
    for step in range(options.step - 1):
        _, state = loader.plan_batch(step, state)
    for batch in loader.make(options.step - 1, state).batches:
        print("\n".join(describe_batch(batch, dataset.vocab, dataset.languages, options.rows)))


def describe_dataset(dataset: Dataset, sentences: int, words: int, width: int) -> Iterator[str]:
    """Yield lines: sizes, the content of each corpus, and what preparation dropped."""
    yield f"== {dataset.path}: " + ", ".join(f"{name}={i}" for i, name in enumerate(dataset.languages))
    header = dataset.header
    yield f"vocabulary {header.vocab_size:,}, ids {header.dtype}, fingerprint {dataset.fingerprint[:12]}"
    columns, *rows = corpus_sizes(dataset)
    yield from format_table(rows, columns).splitlines()
    statistics = Statistics.read(dataset.path / STATISTICS)
    unknown = dict(statistics.unknown_words) if statistics is not None else {}
    yield from describe_corpora(dataset, unknown, sentences, words, width)
    yield ""
    if statistics is None:
        yield "Dropped text and unknown words are not recorded: the data was not made by xlmtrain prepare."
    else:
        yield "== the raw text, with what was dropped and why"
        yield from statistics.table()
        yield from (f"note: {note}" for note in statistics.notes)
