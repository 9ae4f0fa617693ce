"""Everything that can be told of a run by its figures: what is wrong, and how it stands beside its preset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from xlmtrain.config.old_names import current_settings
from xlmtrain.config.schema import flatten
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.format import Header
from xlmtrain.data.spans import duplicate_rate
from xlmtrain.diagnostics.baseline import compare_to_baseline
from xlmtrain.diagnostics.presets import Reference, find_reference, nearest_preset
from xlmtrain.diagnostics.rules import Finding, config_warnings, diagnose, repeated_lines, unigram_entropy
from xlmtrain.errors import UserError
from xlmtrain.metrics.loggers import read_records
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.text.vocab import Vocab


class RunMonitor:
    """Judges the run in the directory ``run`` by what lies there."""

    def __init__(self, run: Path) -> None:
        self._run, self._nested = run, current_settings(read_json(run / "config.json"))
        self._settings, self._header = flatten(self._nested), Header.read(run)
        self._told: set[str] = set()
        counts = Vocab.read(run / "vocab").counts
        self.entropy = unigram_entropy(counts, self._settings.get("mask.inverse_frequency_exponent", 0.0))
        """The loss that knowing the frequency of each token gives, in nats."""

    def findings(self, records: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """What there is to say of the ``records`` of its ``metrics.jsonl``."""
        found = diagnose(records, self._settings, self.entropy, self._repeated)
        if self.reference is not None:
            tokens = next((r["progress/tokens"] for r in reversed(records) if "progress/tokens" in r), 0)
            known = [one.what for one in config_warnings(self._settings, tokens) if one.grave]
            causes = [*repeated_lines(self._repeated), *known]
            found += compare_to_baseline(records, self.reference, self.preset[1], self._header, causes)
        return found

    def news(self) -> list[str]:
        """What can be said of the run by now, a line each, and was not said before. Advice that cannot be had, for a
        file that cannot be read, is not worth a run."""
        try:
            found = self.findings(read_records(self._run / "metrics.jsonl"))
        except (OSError, UserError):
            return []
        lines = []
        for finding in found:
            kind = re.split(r"[\d:]", finding.what)[0]  # the figures change
            if kind not in self._told:
                self._told.add(kind)
                lines.append(finding.what + (f" Likely: {'; '.join(finding.causes)}." if finding.causes else ""))
        return lines

    @cached_property
    def preset(self) -> tuple[str, list[tuple[str, Any, Any]]]:
        """The nearest, and what differs: (setting, its value there, here)."""
        return nearest_preset(self._nested)

    @cached_property
    def reference(self) -> Reference | None:
        """How a run of that preset went, if that is known."""
        return find_reference(
            self.preset[0], self._header.fingerprint_of("train"), self._header.fingerprint_of("valid")
        )

    @cached_property
    def _repeated(self) -> float | None:
        """The share of the training lines that occurred before, in the worst corpus; None if the text is gone."""
        try:
            dataset = Dataset(self._nested["data"]["path"])
        except UserError:
            return None
        if dataset.fingerprint != self._header.fingerprint:
            return None
        names = [name for name in dataset.header.corpora if name.startswith("train.")]
        return max((duplicate_rate(dataset.corpus(name)) for name in names), default=None)
