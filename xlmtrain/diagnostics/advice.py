"""Warnings for a run: at its start, from data and settings, and while it trains, from its metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from xlmtrain.config.schema import Config, config_as_json, flatten
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.quality import quality_warnings
from xlmtrain.diagnostics.rules import config_warnings
from xlmtrain.diagnostics.run_monitor import RunMonitor


def start_warnings(config: Config, dataset: Dataset, has_validation_text: bool) -> list[str]:
    """Return warnings about data quality and suspicious config values."""
    found = list(quality_warnings(dataset, config.model))
    if not has_validation_text:
        found.append(
            "there is no validation text for the training tasks: no evaluation, and no best checkpoint; prepare it "
            "with valid.mono or valid.pairs"
        )
    suspicious = config_warnings(flatten(config_as_json(config)), config.train.steps * config.train.batch_tokens)
    return found + [finding.what for finding in suspicious if finding.grave]


def run_advice(run: Path) -> Callable[[], list[str]]:
    """Return a function that gives new warnings about the run; it reads the run's files at its first call."""
    monitor = cache(partial(RunMonitor, run))
    return lambda: monitor().news()
