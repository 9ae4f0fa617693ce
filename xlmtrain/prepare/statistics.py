"""Statistics of a preparation: lines, drops, subwords and unknown subwords per file and per corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from xlmtrain.data.format import corpus_name
from xlmtrain.errors import DataError, damage_as
from xlmtrain.metrics.table import format_table
from xlmtrain.runtime.atomic_io import json_object, write_json
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.filters import REASONS

STATISTICS = "statistics.json"
UNKNOWN_WORDS_SHOWN = 10
_COUNTERS = ("lines", "sentences", "words", "subwords", "unknown", "segmented")
_OLD_REASONS = {
    "not_utf8": "invalid_utf8",
    "too_many_chars": "max_chars",
    "mismatch": "misaligned",
    "overlap": "decontaminate",
    "duplicate": "drop_duplicates",
    "identical": "drop_identical",
    "ratio": "max_length_ratio",
    "script": "min_latin_fraction",
    "language": "langid_confidence",
    "too_long": "max_tokens",
}
"""Reasons as 0.1.0 named them -> the names of the settings."""


@dataclass
class FileStatistics:
    """One raw file. ``dropped``: lines by reason (:data:`~xlmtrain.text.filters.REASONS`); of a pair, both sides are
    dropped. ``subwords`` does not count EOS; ``unknown`` are those not in the vocabulary. ``segmented``: lines that
    contain ``@@``; ``reads_like``: the language it is clearly in, if not its own; ``suspects``: kind
    (:data:`~xlmtrain.text.suspects.SUSPECTS`) -> number of lines, first line."""

    split: str
    language: str
    pair: str | None
    file: str
    lines: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    sentences: int = 0
    words: int = 0
    subwords: int = 0
    unknown: int = 0
    segmented: int = 0
    reads_like: str | None = None
    suspects: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {_OLD_REASONS.get(reason, reason): count for reason, count in self.dropped.items()}
        if unknown := counts.keys() - set(REASONS):
            raise ValueError(f"dropped: {unknown.pop()} is no reason to drop a line")
        self.dropped = {**dict.fromkeys(REASONS, 0), **counts}  # earlier versions had fewer reasons

    def drop(self, reasons: Mapping[str, int]) -> None:
        """Count lines that were dropped."""
        for reason, count in reasons.items():
            self.dropped[reason] += count

    @property
    def unknown_rate(self) -> float:
        """Share of the subwords that are not in the vocabulary."""
        return self.unknown / max(self.subwords, 1)


@dataclass
class Statistics:
    """The whole preparation. ``vocab_parts``: entries of the vocabulary that do not end a word. ``notes``: remarks for
    the user. ``unknown_words``: corpus -> the most frequent words with a subword that is not in the vocabulary, with
    counts in up to 2,000 such sentences of each shard."""

    files: list[FileStatistics]
    vocab_size: int
    codes: int
    vocab_parts: int = 0
    notes: list[str] = field(default_factory=list)
    unknown_words: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def totals(self) -> list[FileStatistics]:
        """Return the sums per split, language and pair."""
        totals: dict[str, FileStatistics] = {}
        for file in self.files:
            name = corpus_name(file.split, file.language, file.pair)
            total = totals.setdefault(name, FileStatistics(file.split, file.language, file.pair, name))
            total.drop(file.dropped)
            for counter in _COUNTERS:
                setattr(total, counter, getattr(total, counter) + getattr(file, counter))
        return list(totals.values())

    def write(self, path: Path) -> None:
        """Write it all as JSON, raw files by their names without directories: prepared data is passed on."""
        files = [{**asdict(file), "file": Path(file.file).name} for file in self.files]
        write_json(path, {**asdict(self), "files": files, "totals": [asdict(total) for total in self.totals()]})

    @classmethod
    def read(cls, path: Path) -> Statistics | None:
        """Read statistics written by this version or an earlier one; None if the file does not exist.

        Raises DataError if it is damaged.
        """
        if not path.exists():
            return None
        with damage_as(DataError, f"{path}: not statistics as this program writes them"):
            content = json_object(path)
            known = {field.name for field in fields(cls)}
            return typed(cls, {name: value for name, value in content.items() if name in known})

    def table(self) -> list[str]:
        """Format a row per file, and a row for the sum of each corpus; columns of drops are named by their settings."""
        reasons = [reason for reason in REASONS if any(file.dropped[reason] for file in self.files)]
        header = ["file", "lines", *reasons, "sentences", "subwords", "per word", "unknown"]
        rows = []
        for file in [*self.files, *self.totals()]:
            counts = (file.lines, *(file.dropped[reason] for reason in reasons), file.sentences, file.subwords)
            rates = (f"{file.subwords / max(file.words, 1):.2f}", f"{file.unknown_rate:.3%}")
            rows.append((file.file, *(f"{count:,}" for count in counts), *rates))
        return format_table(rows, header, rules=(len(self.files),)).splitlines()

    def __str__(self) -> str:
        lines = self.table()
        for corpus, words in self.unknown_words.items():
            if words:
                shown = " | ".join(f"{word} {count:,}" for word, count in words[:UNKNOWN_WORDS_SHOWN])
                lines.append(f"unknown in {corpus}: {shown}")
        lines += [f"note: {note}" for note in self.notes]
        codes = f"{self.codes:,} BPE codes, vocabulary" if self.codes else "tokenizer"
        return "\n".join([*lines, f"{codes} of {self.vocab_size:,}"])
