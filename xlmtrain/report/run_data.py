"""The files of a run, read for a report."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

# TensorBoard's own reader: it leaves out the texts that a resumed run has written again.
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from xlmtrain.diagnostics.finding import Finding
from xlmtrain.diagnostics.run_monitor import RunMonitor
from xlmtrain.errors import CheckpointError
from xlmtrain.metrics.loggers import PHASE, read_records
from xlmtrain.runtime.atomic_io import read_json

_SAMPLES = "samples/"
_TEXT = "/text_summary"


_DIRECTORIES = re.compile(r"(?:(?<=^)|(?<=[\s=:'\"(\[{,]))(?:~|\.{0,2})?/(?:[^\s/:;,'\"]+/)*(?=[^\s/])")


class RunData:
    """The content of a run directory. Raises CheckpointError for a directory that no training wrote."""

    def __init__(self, path: Path) -> None:
        metrics = path / "metrics.jsonl"
        if not metrics.is_file():
            is_model = (path / "config.json").is_file()
            hint = "averaged and converted models have no metrics" if is_model else "is this a run directory?"
            raise CheckpointError(f"{metrics}: missing; {hint}")
        self.path, self.name = path, path.name
        self.records = read_records(metrics)
        self.environment = read_json(path / "environment.json")
        self.status = read_json(path / "status.json")
        self.monitor = RunMonitor(path)
        self.settings, self.header, self.vocab = self.monitor.settings, self.monitor.header, self.monitor.vocab

    def shown(self, value: Any) -> Any:
        """Return a text or list as reports, which are passed on, show it: the last part only of each path.

        Paths are those of the settings and absolute ones; another ``a/b`` is not taken for a path.
        """
        if not isinstance(value, (str, list)):
            return value
        return _DIRECTORIES.sub("", self._named_directories.sub("", str(value)))

    @cached_property
    def _named_directories(self) -> re.Pattern[str]:
        """The directories of relative paths in the settings."""
        values = [value for key, value in self.settings.items() if key != "evaluate.metric"]
        texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        parts = {re.escape(text.rstrip("/").rpartition("/")[0]) for text in texts if isinstance(text, str)} - {""}
        return re.compile(rf"(?<![\w./~-])(?:{'|'.join(sorted(parts, key=len, reverse=True)) or '(?!)'})/+(?=[^\s/])")

    @property
    def last(self) -> dict[str, Any]:
        """The last training metrics; empty before the first."""
        return next((record for record in reversed(self.records) if "train/loss" in record), {})

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The metrics of all evaluations."""
        return [record for record in self.records if any(key.startswith("valid/") for key in record)]

    def names(self, prefix: str, suffix: str) -> list[str]:
        """Return the metrics that are named so, in the order of their first appearance."""
        found = {key: None for record in self.records for key in record}
        return [key for key in found if key.startswith(prefix) and key.endswith(suffix)]

    def per_language(self, suffix: str) -> list[str]:
        """Return the validation metrics of single languages and pairs, without the means over them."""
        first_words = {name: re.split("[/_]", name)[1] for name in self.names("valid/", suffix)}
        return [name for name, word in first_words.items() if set(word.split("-")) <= set(self.header.languages)]

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Return a metric over the tokens that the run had seen: (tokens, values)."""
        points = [(self._tokens_at.get(r["step"], float(r["step"])), r[name]) for r in self.records if name in r]
        return [tokens for tokens, _ in points], [value for _, value in points]

    @cached_property
    def phases(self) -> list[tuple[float, str]]:
        """The tokens at which each phase began, and its name; empty without phases."""
        found: list[tuple[float, str]] = []
        before = 0.0
        for record in self.records:
            if PHASE in record:
                if not found or found[-1][1] != record[PHASE]:
                    found.append((before, record[PHASE]))
                before = record["progress/tokens"]
        return found

    @cached_property
    def _tokens_at(self) -> dict[int, float]:
        """Step -> tokens; every evaluation follows a record of training metrics."""
        return {0: 0.0} | {r["step"]: r["progress/tokens"] for r in self.records if "progress/tokens" in r}

    def findings(self) -> list[Finding]:
        """Return the problems of the run."""
        found = self.monitor.diagnose(self.records)
        if self.status.get("status") == "failed":
            found.insert(0, Finding(f"The run ended with an error: {self.shown(self.status.get('reason', ''))}"))
        return found

    @cached_property
    def samples(self) -> dict[str, list[tuple[int, str]]]:
        """Map names to (step, Markdown) of what evaluate/cloze and evaluate/translation made to be read."""
        board = EventAccumulator(str(self.path / "tensorboard"), size_guidance={"tensors": 0})
        board.Reload()
        return {
            tag.removeprefix(_SAMPLES).removesuffix(_TEXT): [
                (event.step, event.tensor_proto.string_val[0].decode()) for event in board.Tensors(tag)
            ]
            for tag in board.Tags()["tensors"]
            if tag.startswith(_SAMPLES)
        }
