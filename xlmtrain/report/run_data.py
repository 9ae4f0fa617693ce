"""The files of a run, read for a report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from pathlib import Path
from typing import Any

# TensorBoard's own reader: it leaves out the texts that a resumed run has written again.
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from xlmtrain.config.old_names import current_settings
from xlmtrain.config.schema import flatten
from xlmtrain.data.format import Header
from xlmtrain.diagnostics.finding import Finding
from xlmtrain.diagnostics.run_monitor import RunMonitor
from xlmtrain.errors import CheckpointError
from xlmtrain.metrics.loggers import read_records
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.text.vocab import MASK, SPECIALS, Vocab

_SAMPLES = "samples/"
_TEXT = "/text_summary"


@dataclass(frozen=True)
class Piece:
    """A word of a masked sentence; ``guess``: the prediction, None where nothing was masked."""

    word: str
    guess: str | None = None


class RunData:
    """The content of a run directory. Raises CheckpointError for a directory that no training wrote."""

    def __init__(self, path: Path) -> None:
        metrics = path / "metrics.jsonl"
        if not metrics.is_file():
            raise CheckpointError(f"{metrics}: missing; is this a run directory?")
        self.path, self.name = path, path.name
        self.records = read_records(metrics)
        self.nested = current_settings(read_json(path / "config.json"))
        self.settings = flatten(self.nested)
        self.environment = read_json(path / "environment.json")
        self.status = read_json(path / "status.json")
        self.header, self.vocab = Header.read(path), Vocab.read(path / "vocab")
        self.monitor = RunMonitor(path)

    @property
    def last(self) -> dict[str, Any]:
        """Return the last training metrics; empty before the first."""
        return next((record for record in reversed(self.records) if "train/loss" in record), {})

    def names(self, prefix: str, suffix: str) -> list[str]:
        """Return the metrics that are named so, in the order of their first appearance."""
        found = {key: None for record in self.records for key in record}
        return [key for key in found if key.startswith(prefix) and key.endswith(suffix)]

    def per_language(self, suffix: str) -> list[str]:
        """Return the validation metrics of single languages and pairs, without the means over them."""
        return [name for name in self.names("valid/", suffix) if self._has_language(name)]

    def _has_language(self, name: str) -> bool:
        key = name.partition("/")[2].partition("_")[0]
        return set(key.split("-")) <= set(self.header.languages)

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Return a metric over the tokens that the run had seen: (tokens, values)."""
        xs, ys = [], []
        for record in self.records:
            if name in record:
                xs.append(self._tokens(record["step"]))
                ys.append(record[name])
        return xs, ys

    def findings(self) -> list[Finding]:
        """Return the problems of the run."""
        found = self.monitor.diagnose(self.records)
        if self.status.get("status") == "failed":
            found.insert(0, Finding(f"The run ended with an error: {self.status.get('reason', '')}"))
        return found

    @cached_property
    def samples(self) -> dict[str, list[tuple[int, list[list[Piece]]]]]:
        """Map each validation set to (step, its masked sentences with the predictions of that step), oldest first."""
        board = EventAccumulator(str(self.path / "tensorboard"), size_guidance={"tensors": 0})
        board.Reload()
        found = {}
        for tag in board.Tags()["tensors"]:
            if tag.startswith(_SAMPLES):
                events = board.Tensors(tag)
                texts = [(event.step, event.tensor_proto.string_val[0].decode()) for event in events]
                found[tag.removeprefix(_SAMPLES).removesuffix(_TEXT)] = [(step, pieces(text)) for step, text in texts]
        return found

    @cached_property
    def _tokens_at(self) -> dict[int, float]:
        return {0: 0.0} | {r["step"]: r["progress/tokens"] for r in self.records if "progress/tokens" in r}

    def _tokens(self, step: int) -> float:
        """Return the tokens at a step; every evaluation follows a record of training metrics."""
        return self._tokens_at.get(step, float(step))


def pieces(markdown: str) -> list[list[Piece]]:
    """Parse what :func:`xlmtrain.evaluate.cloze.sample_predictions` returns: ``[gold > predicted]``, ``**[gold]**``."""
    sentences = []
    for line in markdown.splitlines():
        text = unescape(line.partition(". ")[2])
        sentences.append([_piece(match) for match in re.finditer(r"\*\*\[(\S+)\]\*\*|\[(\S+) > (\S+)\]|(\S+)", text)])
    return sentences


def _piece(match: re.Match[str]) -> Piece:
    right, truth, guess, word = (text and text.replace(SPECIALS[MASK], "<mask>") for text in match.groups())
    if right is not None:
        return Piece(right, right)
    return Piece(word) if truth is None else Piece(truth, guess)
