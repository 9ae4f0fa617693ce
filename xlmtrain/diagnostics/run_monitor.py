"""Warnings about a run: before its first step, and while it trains."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from xlmtrain.config.old_names import current_settings
from xlmtrain.config.phases import expand, phases_of, total_tokens
from xlmtrain.config.schema import Config, config_as_json, flatten
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.format import Header, open_verified
from xlmtrain.data.spans import duplicate_rate
from xlmtrain.diagnostics.baseline import ReferenceCurve, compare_to_baseline, find_reference
from xlmtrain.diagnostics.data_quality import no_validation, quality_warnings
from xlmtrain.diagnostics.finding import Finding, Severity
from xlmtrain.diagnostics.rules import Record, Settings, config_warnings, diagnose, duplicate_lines, unigram_entropy
from xlmtrain.errors import UserError
from xlmtrain.evaluate.validator import Validator
from xlmtrain.metrics.loggers import read_records
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.text.vocab import Vocab


def start_warnings(config: Config, dataset: Dataset, validator: Validator) -> Iterator[Finding]:
    """Yield what a run should be warned of at its start: data quality, missing validation text, errors of settings."""
    yield from quality_warnings(dataset, config.model)
    yield from no_validation(validator)
    tokens, phases = total_tokens(phases_of(config)), rule_settings(config_as_json(config))
    yield from {error.what: error for _, settings in phases for error in _errors(settings, tokens)}.values()


def _errors(settings: Settings, tokens: float) -> list[Finding]:
    found = config_warnings(settings, tokens).values()
    return [finding for finding in found if finding.severity is Severity.error]


def rule_settings(settings: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Return (first step, settings by key path) of each phase; ``settings``: of a run, as plain JSON values.

    The warm-up and the number of steps are those of the run, which the rules judge.
    """
    if not settings.get("phases"):
        return [(0, flatten(settings))]
    found = [(span, flatten(phase_settings)) for span, phase_settings in expand(settings)]
    run = {"train.steps": found[-1][0].end, "optim.warmup_steps": found[0][1].get("optim.warmup_steps", 0)}
    return [(span.start, phase_settings | run) for span, phase_settings in found]


class RunMonitor:
    """Diagnoses the run in the directory ``run`` from its files."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._reported: set[str] = set()

    def diagnose(self, records: Sequence[Record]) -> list[Finding]:
        """Return the findings on ``records`` of the run's ``metrics.jsonl``, those of the phase that it is in."""
        step = max((record["step"] for record in records), default=0)
        start, settings = [rule for rule in rule_settings(self._nested) if rule[0] < max(step, 1)][-1]
        latest = [record for record in records if record["step"] > start or not start]
        found = diagnose(latest, settings, self.entropy, self._duplicates)
        if self.reference is not None:
            tokens = next((r["progress/tokens"] for r in reversed(records) if "progress/tokens" in r), 0)
            causes = [finding.what for finding in [*duplicate_lines(self._duplicates), *_errors(settings, tokens)]]
            found += compare_to_baseline(records, self.reference, self.settings, self.header, causes)
        return found

    def new_warnings(self) -> list[str]:
        """Return the findings since the last call, one line each."""
        lines = []
        for finding in self.diagnose(read_records(self._run / "metrics.jsonl")):
            kind = re.split(r"[\d:]", finding.what)[0]  # without the numbers, which change
            if kind not in self._reported:
                self._reported.add(kind)
                lines.append(str(finding))
        return lines

    @cached_property
    def entropy(self) -> float:
        """Entropy of the token frequencies among the targets, in nats."""
        return unigram_entropy(self.vocab.counts, self.settings.get("mask.inverse_frequency_exponent", 0.0))

    @cached_property
    def reference(self) -> ReferenceCurve | None:
        """The run of a similar preset to compare with; None if there is none."""
        return find_reference(self.settings, *map(self.header.fingerprint_of, ("train", "valid")))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The run's settings, by key path."""
        return flatten(self._nested)

    @cached_property
    def _nested(self) -> dict[str, Any]:
        return current_settings(read_json(self._run / "config.json"))

    @cached_property
    def _data(self) -> tuple[Header, Vocab]:
        return open_verified(self._run)

    @property
    def header(self) -> Header:
        """The header of its data."""
        return self._data[0]

    @property
    def vocab(self) -> Vocab:
        """Its vocabulary."""
        return self._data[1]

    @cached_property
    def _duplicates(self) -> float | None:
        """The highest share of repeated lines in a training corpus; None if the text is not there any more."""
        if "data.path" not in self.settings:  # an imported model
            return None
        try:
            dataset = Dataset(self.settings["data.path"])
        except UserError:
            return None
        if dataset.fingerprint != self.header.fingerprint:
            return None
        names = [name for name in dataset.header.corpora if name.startswith("train.")]
        return max((duplicate_rate(dataset.corpus(name)) for name in names), default=None)
