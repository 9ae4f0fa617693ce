"""What became of the raw text: per file, per language and split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from xlmtrain.runtime.files import write_json

UNKNOWN_WARNING = 0.01
COLUMNS = ("file", "lines", "empty", "too long", "sentences", "subwords", "per word", "unknown")


@dataclass
class FileStatistics:
    """One raw file. ``dropped``: lines by reason; of a pair, both sides' lines go if either side's has to.
    ``subwords`` does not count EOS; ``unknown`` are those not in the vocabulary."""

    split: str
    language: str
    pair: str | None
    file: str
    lines: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"empty": 0, "too_long": 0})
    sentences: int = 0
    words: int = 0
    subwords: int = 0
    unknown: int = 0

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
        """Splits and languages in which so many subwords are unknown that codes and vocabulary hardly fit the text."""
        return [
            f"{total.file}: {total.unknown_rate:.1%} of the subwords are not in the vocabulary; were codes and "
            f"vocabulary made from text like this?"
            for total in self.totals()
            if total.unknown_rate > UNKNOWN_WARNING
        ]

    def write(self, path: Path) -> None:
        """Write it all as JSON."""
        totals = [asdict(total) for total in self.totals()]
        write_json(path, {**asdict(self), "totals": totals, "warnings": self.warnings()})

    def __str__(self) -> str:
        rows = [COLUMNS, *map(_row, self.files), *map(_row, self.totals())]
        lines = _table(rows, rules=(0, len(self.files)))
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"WARNING: {warning}" for warning in self.warnings()]
        return "\n".join([*lines, f"{self.codes:,} BPE codes, vocabulary of {self.vocab_size:,}"])


def _sum(files: Sequence[FileStatistics]) -> FileStatistics:
    first = files[0]
    name = ".".join(part for part in (first.split, first.pair, first.language) if part)
    total = FileStatistics(first.split, first.language, first.pair, name)
    for counter in ("lines", "sentences", "words", "subwords", "unknown"):
        setattr(total, counter, sum(getattr(file, counter) for file in files))
    total.dropped = {reason: sum(file.dropped[reason] for file in files) for reason in total.dropped}
    return total


def _row(file: FileStatistics) -> tuple[str, ...]:
    counts = (file.lines, file.dropped["empty"], file.dropped["too_long"], file.sentences, file.subwords)
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
