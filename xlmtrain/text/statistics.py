"""What became of the raw text: per file, per language and split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from xlmtrain.runtime.files import write_json
from xlmtrain.text.clean import REASONS

UNKNOWN_WARNING = 0.01
COLUMNS = ("sentences", "subwords", "per word", "unknown")
VOCAB_WARNING = 200_000
SUBWORDS_PER_WORD_WARNING = 3.0
SEGMENTED_WARNING = 0.01


@dataclass
class FileStatistics:
    """One raw file. ``dropped``: lines by reason (:data:`~xlmtrain.text.clean.REASONS`); of a pair, both sides' lines
    go if either side's has to. ``subwords`` does not count EOS; ``unknown`` are those not in the vocabulary.
    ``segmented``: lines with ``@@`` in them; ``reads_like``: the language it is clearly in, if not its own."""

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
    """The whole job. ``notes``: what the user should know about it; ``warnings``: what may be wrong with it."""

    files: list[FileStatistics]
    vocab_size: int
    codes: int
    notes: list[str] = field(default_factory=list)

    def totals(self) -> list[FileStatistics]:
        """Sums per split, language and pair."""
        groups: dict[tuple[str, str, str | None], list[FileStatistics]] = {}
        for file in self.files:
            groups.setdefault((file.split, file.language, file.pair), []).append(file)
        return [_sum(files) for files in groups.values()]

    def warnings(self) -> list[str]:
        """What is so unlikely in good data that the user should look before training on it."""
        found = list(raw_warnings(self.files))
        for total in self.totals():
            if overlap := total.dropped["overlap"]:
                found.append(
                    f"{total.file}: {overlap:,} lines are in the validation or test text, too; they were left out"
                )
            if total.unknown_rate > UNKNOWN_WARNING:
                found.append(
                    f"{total.file}: {total.unknown_rate:.1%} of the subwords are not in the vocabulary; were codes and "
                    f"vocabulary made from text like this?"
                )
            if total.subwords > SUBWORDS_PER_WORD_WARNING * total.words:
                found.append(
                    f"{total.file}: {total.subwords / total.words:.1f} subwords a word; were the codes learned from "
                    f"text like this, and enough of them?"
                )
        if self.vocab_size > VOCAB_WARNING:
            found.append(
                f"a vocabulary of {self.vocab_size:,}: the embeddings of a model of 1024 dimensions alone would have "
                f"{self.vocab_size * 1024 / 1e6:,.0f} million parameters; take fewer bpe.merges, or vocab.max_size"
            )
        return found

    def write(self, path: Path) -> None:
        """Write it all as JSON."""
        totals = [asdict(total) for total in self.totals()]
        write_json(path, {**asdict(self), "totals": totals, "warnings": self.warnings()})

    def __str__(self) -> str:
        reasons = [reason for reason in REASONS if any(file.dropped[reason] for file in self.files)]
        columns = ["file", "lines", *(reason.replace("_", " ") for reason in reasons), *COLUMNS]
        rows = [columns, *(_row(file, reasons) for file in [*self.files, *self.totals()])]
        lines = _table(rows, rules=(0, len(self.files)))
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


def _table(rows: Sequence[Sequence[str]], rules: Iterable[int]) -> list[str]:
    """Left-aligned first column, right-aligned others, a rule after the rows of the given indices."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for i, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
        if i in rules:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines
