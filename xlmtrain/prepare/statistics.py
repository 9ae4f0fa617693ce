"""Statistics of a preparation: lines, drops, subwords and unknown subwords per file and per corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from xlmtrain.errors import DataError
from xlmtrain.prepare.quality import unk_warnings, vocab_warnings
from xlmtrain.runtime.atomic_io import write_json
from xlmtrain.text.filters import REASONS

STATISTICS = "statistics.json"
COLUMNS = ("sentences", "subwords", "per word", "unknown")
SUBWORDS_PER_WORD_WARNING = 3.0
SEGMENTED_WARNING = 0.01
UNKNOWN_WORDS_SHOWN = 10


@dataclass
class FileStatistics:
    """One raw file. ``dropped``: lines by reason (:data:`~xlmtrain.text.filters.REASONS`); of a pair, both sides are
    dropped. ``subwords`` does not count EOS; ``unknown`` are those not in the vocabulary. ``segmented``: lines that
    contain ``@@``; ``reads_like``: the language it is clearly in, if not its own."""

    split: str
    language: str
    pair: str | None
    file: str
    lines: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    sentences: int = 0
    words: int = 0
    subwords: int = 0
    unknown: int = 0
    segmented: int = 0
    reads_like: str | None = None

    def __post_init__(self) -> None:
        self.dropped = {**dict.fromkeys(REASONS, 0), **self.dropped}  # earlier versions had fewer reasons

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
        groups: dict[tuple[str, str, str | None], list[FileStatistics]] = {}
        for file in self.files:
            groups.setdefault((file.split, file.language, file.pair), []).append(file)
        return [_sum(files) for files in groups.values()]

    def warnings(self) -> list[str]:
        """What is so unlikely in good data that the user should look before training on it."""
        found = list(self.raw_doubts())
        for total in self.totals():
            found += unk_warnings(total.file, total.unknown_rate)
        found += vocab_warnings(self.vocab_size, self.vocab_parts)
        return found

    def raw_doubts(self) -> Iterator[str]:
        """Those that the prepared data does not show by itself."""
        yield from raw_warnings(self.files)
        yield from self.overlaps()
        for total in self.totals():
            if total.subwords > SUBWORDS_PER_WORD_WARNING * total.words:
                yield (
                    f"{total.file}: {total.subwords / total.words:.1f} subwords a word; were the codes learned from "
                    f"text like this, and enough of them?"
                )

    def overlaps(self) -> Iterator[str]:
        """What was taken out of the training text, as the model is to be judged by it."""
        for total in self.totals():
            if overlap := total.dropped["overlap"]:
                yield f"{total.file}: {overlap:,} lines are in the validation or test text, too; they were left out"

    def write(self, path: Path) -> None:
        """Write it all as JSON."""
        totals = [asdict(total) for total in self.totals()]
        write_json(path, {**asdict(self), "totals": totals, "warnings": self.warnings()})

    @classmethod
    def read(cls, path: Path) -> Statistics | None:
        """Read statistics written by this version or an earlier one; None if the file does not exist.

        Raises DataError if it is damaged.
        """
        try:
            content = json.loads(path.read_bytes())
            known = {field.name for field in fields(cls)} & set(content)
            values = {name: content[name] for name in known - {"files"}}
            return cls(files=[FileStatistics(**file) for file in content["files"]], **values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not statistics as this program writes them ({error!r})") from error

    def table(self) -> list[str]:
        """Format a row per file, and a row for the sum of each corpus."""
        reasons = [reason for reason in REASONS if any(file.dropped[reason] for file in self.files)]
        columns = ["file", "lines", *(reason.replace("_", " ") for reason in reasons), *COLUMNS]
        rows = [columns, *(_row(file, reasons) for file in [*self.files, *self.totals()])]
        return table(rows, rules=(0, len(self.files)))

    def __str__(self) -> str:
        lines = self.table()
        for corpus, words in self.unknown_words.items():
            if words:
                lines.append(f"unknown in {corpus}: {listed(words[:UNKNOWN_WORDS_SHOWN])}")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"WARNING: {warning}" for warning in self.warnings()]
        return "\n".join([*lines, f"{self.codes:,} BPE codes, vocabulary of {self.vocab_size:,}"])


def raw_warnings(files: Iterable[FileStatistics]) -> Iterator[str]:
    """What the raw text alone shows, before the long work."""
    for file in files:
        key = ".".join(part for part in (file.split, file.pair or "mono", file.language) if part)
        if file.reads_like:
            yield f"{key}: {file.file} reads like {file.reads_like}, not {file.language}; were files swapped?"
        if file.segmented > SEGMENTED_WARNING * file.lines:
            yield (
                f"{key}: {file.segmented:,} of {file.lines:,} lines of {file.file} hold '@@ ', as after BPE; this "
                "program wants raw text"
            )


def _sum(files: Sequence[FileStatistics]) -> FileStatistics:
    first = files[0]
    name = ".".join(part for part in (first.split, first.pair, first.language) if part)
    total = FileStatistics(first.split, first.language, first.pair, name)
    for counter in ("lines", "sentences", "words", "subwords", "unknown", "segmented"):
        setattr(total, counter, sum(getattr(file, counter) for file in files))
    total.dropped = {reason: sum(file.dropped[reason] for file in files) for reason in total.dropped}
    return total


def _row(file: FileStatistics, reasons: Iterable[str]) -> tuple[str, ...]:
    counts = (file.lines, *(file.dropped[reason] for reason in reasons), file.sentences, file.subwords)
    per_word = f"{file.subwords / max(file.words, 1):.2f}"
    return (file.file, *(f"{count:,}" for count in counts), per_word, f"{file.unknown_rate:.3%}")


def listed(words: Iterable[tuple[str, int]]) -> str:
    """Words with their counts."""
    return " | ".join(f"{word} {count:,}" for word, count in words)


def table(rows: Sequence[Sequence[str]], rules: Iterable[int]) -> list[str]:
    """Left-aligned first column, right-aligned others, a rule after the rows of the given indices."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for i, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
        if i in rules:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines
