"""The prepared data: whole, such as one would want to train on, and what the settings ask of it."""

from __future__ import annotations

from collections.abc import Iterator

from xlmtrain.config.schema import Config
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.quality import check_vocabulary, quality_warnings
from xlmtrain.data.spans import duplicate_rate
from xlmtrain.diagnostics.rules import Finding, repeated_lines
from xlmtrain.errors import ConfigError, DataError, UserError
from xlmtrain.evaluate.validator import Validator
from xlmtrain.prepare.statistics import STATISTICS, Statistics

_PASSES = 200


def check_data(config: Config, dataset: Dataset) -> Iterator[str | Finding]:
    """Checksums of all that training reads, the vocabulary's size, and what looks unlikely in it."""
    yield (
        f"{dataset.path}: {', '.join(dataset.languages)}, vocabulary {len(dataset.vocab):,}, "
        f"fingerprint {dataset.fingerprint[:12]}"
    )
    try:
        dataset.verify_training()
        check_vocabulary(len(dataset.vocab), config.model)
    except DataError as error:
        yield Finding(str(error))
        return
    harmless = set(_left_out(dataset))
    for doubt in quality_warnings(dataset, config.model):
        yield Finding(doubt, grave=doubt not in harmless)
    for name in dataset.header.corpora:
        if name.startswith("train."):
            for what in repeated_lines(duplicate_rate(dataset.corpus(name))):
                yield Finding(f"{name}: {what}")


def check_use(config: Config, dataset: Dataset, processes: int) -> Iterator[str | Finding]:
    """Whether there is what the settings train on and judge by, for so many processes, and how often it is seen."""
    try:
        sampler = Loader(config, dataset, 0, processes).sampler
    except UserError as error:
        yield Finding(str(error))
        return
    sub_batches = config.train.batch_tokens // config.data.sub_batch_tokens
    for component, share in zip(sampler.components, sampler.probabilities):
        passes = share * sub_batches * config.train.steps / component.source.sub_batch_count(0)
        count = component.source.sentences
        yield f"{component.name}: {count:,} sentences, {share:.0%} of the sub-batches, seen {passes:.1f} times"
        if passes > _PASSES:
            yield Finding(
                f"{component.name}: its text will be seen {passes:,.0f} times, and learned by heart.",
                ["more text, fewer train.steps, or a lower weight"],
                grave=False,
            )
    try:
        sets = Validator(config, dataset).sets
    except (ConfigError, DataError) as error:
        yield Finding(str(error))
        return
    if not sets:
        yield Finding(
            "There is no validation text: nothing will tell a good checkpoint from a bad one.",
            ["prepare the data with valid.mono and valid.pairs"],
            grave=False,
        )


def _left_out(dataset: Dataset) -> list[str]:
    try:
        statistics = Statistics.read(dataset.path / STATISTICS)
    except DataError:  # which is a doubt by itself
        return []
    return list(statistics.overlaps()) if statistics is not None else []
