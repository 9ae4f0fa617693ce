"""Everything that can be told of a run by its figures: what is wrong, and how it stands beside its preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from xlmtrain.config.presets import Reference, nearest_preset, reference
from xlmtrain.config.schema import flat
from xlmtrain.data.corpus import Dataset
from xlmtrain.data.sample import repeated
from xlmtrain.errors import DataError
from xlmtrain.evaluate.comparison import behind
from xlmtrain.evaluate.diagnosis import Finding, diagnose, doubtful_settings, repeated_lines, unigram_entropy


class Adviser:
    """Of one run. ``settings``: its ``config.json``; ``data``, ``judged_on``: fingerprints of its text, as in
    :class:`~xlmtrain.config.presets.Reference`; ``counts`` (V,): of its vocabulary."""

    def __init__(self, settings: Mapping[str, Any], data: str, judged_on: str, counts: np.ndarray) -> None:
        self._nested, self._settings = settings, flat(settings)
        self._data, self._judged_on = data, judged_on
        self.entropy = unigram_entropy(counts, self._settings.get("mask.frequency_alpha", 0.0))

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """What there is to say of the ``records`` of its ``metrics.jsonl`` so far."""
        found = diagnose(records, self._settings, self.entropy, self._repeated)
        if self.reference is not None:
            tokens = next((r["progress/tokens"] for r in reversed(records) if "progress/tokens" in r), 0)
            known = [one.what for one in doubtful_settings(self._settings, tokens) if one.grave]
            causes = [*repeated_lines(self._repeated), *known]
            found += behind(records, self.reference, self.preset[1], self._data, self._judged_on, causes)
        return found

    @cached_property
    def preset(self) -> tuple[str, list[tuple[str, Any, Any]]]:
        """The nearest, and what differs: (setting, its value there, here)."""
        return nearest_preset(self._nested)

    @cached_property
    def reference(self) -> Reference | None:
        """How a run of that preset went, if that is known."""
        return reference(self.preset[0], self._data, self._judged_on)

    @cached_property
    def _repeated(self) -> float | None:
        """The share of the training lines that occurred before, in the worst corpus; None if the text is gone."""
        try:
            dataset = Dataset(self._nested["data"]["path"])
        except DataError:
            return None
        if dataset.fingerprint != self._data:
            return None
        names = [name for name in dataset.header.corpora if name.startswith("train.")]
        return max((repeated(dataset.corpus(name)) for name in names), default=None)
