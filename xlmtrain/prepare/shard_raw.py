"""Stage ``shard``: read the raw files once, check them, and split them into shards of bounded size.

A shard holds consecutive lines of one raw text (of both files of a pair), the same number for every language,
compressed with Zstandard. Unusable text is detected here, before the long stages: lines that are not UTF-8, lines of
more than ``clean.max_chars`` characters, misaligned pairs. Shard boundaries depend on the text and ``shard_mb`` only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from xlmtrain.config.prepare import CleanConfig, OnError, PrepareConfig
from xlmtrain.errors import DataError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.columns import Column
from xlmtrain.prepare.raw_files import Chunk, RawText, UnequalLengths, read_chunks
from xlmtrain.text.alignment_check import first_mismatch
from xlmtrain.text.filters import Check
from xlmtrain.text.langid import marker_words
from xlmtrain.text.suspects import find_suspects
from xlmtrain.text.text_files import open_zstd_writer

CHUNK_BYTES = 1 << 18


class Shard(NamedTuple):
    """A shard of raw text: ``raw`` is the key of its artifact, ``number`` its index in the artifact."""

    text: RawText
    raw: str
    number: int
    lines: int
    bytes: int

    @property
    def is_train(self) -> bool:
        """True for training text."""
        return self.text.split == "train"


def shard_task(text: RawText, config: PrepareConfig) -> BuildTask:
    """Return the task for one raw text. Its key changes with the size and time of change of the files."""
    stats = [path.stat() for path in text.paths]
    arguments = {
        "split": text.split,
        "languages": list(text.languages),
        "files": [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in zip(text.paths, stats)],
        "columns": [asdict(column) for column in text.columns],
        "documents": text.documents,
        "shard_bytes": config.shard_mb * 10**6,
        "clean": {name: asdict(config.clean)[name] for name in ("invalid_utf8", "max_chars", "misaligned")},
    }
    return BuildTask("shard", arguments, sum(stat.st_size for stat in stats))


def shard_raw(
    store: ArtifactStore,
    out: Path,
    split: str,
    languages: list[str],
    files: list[list[Any]],
    columns: list[dict[str, Any]],
    documents: bool,
    shard_bytes: int,
    clean: dict[str, Any],
) -> dict[str, Any]:
    """Write the shards of a raw text to ``out``. Raises DataError with file and line for text that ``clean`` does not
    tolerate.

    In the result, ``words`` are :func:`~xlmtrain.text.langid.marker_words` of each side, ``segmented`` lines contain
    ``@@``, ``suspects`` are the number and the first of the lines of each kind of
    :data:`~xlmtrain.text.suspects.SUSPECTS`, for each side.
    """
    its_columns = tuple(Column(**{**column, "names": tuple(column["names"])}) for column in columns)
    text = RawText(split, tuple(languages), tuple(Path(path) for path, *_ in files), its_columns, documents)
    checks = _Checks(text, CleanConfig(**clean))
    shards: list[dict[str, int]] = []
    with ExitStack() as files_of_shard:
        for chunk in checks.usable():
            if not shards or shards[-1]["bytes"] >= shard_bytes:
                files_of_shard.close()
                paths = [shard_file(out, len(shards), language) for language in languages]
                sides = [files_of_shard.enter_context(open_zstd_writer(path)) for path in paths]
                shards.append({"lines": 0, "bytes": 0})
            for side, lines in zip(sides, chunk.lines):
                side.write(b"".join(line + b"\n" for line in lines))
            shards[-1]["lines"] += len(chunk.lines[0])
            shards[-1]["bytes"] += chunk.size
    return {
        "shards": shards,
        "lines": checks.lines,
        "dropped": dict(checks.dropped),
        "words": [dict(words) for words in checks.words],
        "segmented": checks.segmented,
        "suspects": checks.suspects,
    }


class _Checks:
    """Reads a raw text without its unusable lines, and counts what it finds."""

    def __init__(self, text: RawText, clean: CleanConfig) -> None:
        self._text, self._clean = text, clean
        self.lines = self.segmented = 0
        self.dropped: Counter[str] = Counter()
        self.words: list[Counter[str]] = [Counter() for _ in text.languages]
        self.suspects: list[dict[str, list[int]]] = [{} for _ in text.languages]

    def usable(self) -> Iterator[Chunk]:
        """Yield every chunk without its unusable lines; it may be empty."""
        try:
            for chunk in read_chunks(self._text, CHUNK_BYTES, 4 * self._clean.max_chars):
                self.lines += len(chunk.lines[0])
                self._count_suspects(chunk)
                for check in (self._too_long, self._undecodable, self._misaligned):
                    reasons = check(chunk)
                    self.dropped.update(reasons.values())
                    chunk = chunk.without(reasons)
                self.segmented += sum(1 for side in chunk.lines for line in side if b"@@ " in line)
                yield chunk
        except UnequalLengths as error:
            if self._clean.misaligned == OnError.stop:
                raise
            self.lines += error.surplus
            self.dropped["misaligned"] += error.surplus

    def _count_suspects(self, chunk: Chunk) -> None:
        for side, (suspects, lines) in enumerate(zip(self.suspects, chunk.lines)):
            for kind, indices in find_suspects(lines):
                suspects.setdefault(kind, [0, chunk.number(side, indices[0])])[0] += len(indices)

    def _too_long(self, chunk: Chunk) -> dict[int, str]:
        limit = self._clean.max_chars
        return {
            index: "max_chars"
            for side in chunk.lines
            for index, line in enumerate(side)
            if limit and len(line) > limit and len(line.decode(errors="ignore")) > limit
        }

    def _undecodable(self, chunk: Chunk) -> dict[int, str]:
        bad = {}
        for side, (path, lines) in enumerate(zip(self._text.sides, chunk.lines)):
            if _decoding_error(b"\n".join(lines)) is None:
                continue
            for index, line in enumerate(lines):
                if error := _decoding_error(line):
                    if self._clean.invalid_utf8 == OnError.stop:
                        raise DataError(
                            f"{path}:{chunk.number(side, index)}: not UTF-8 ({error.reason}); convert the file, e.g. "
                            "with iconv, remove the line, or drop such lines with clean.invalid_utf8=drop"
                        )
                    bad[index] = "invalid_utf8"
        return bad

    def _misaligned(self, chunk: Chunk) -> dict[int, str]:
        """Find the first misaligned line of a pair; the rest of the chunk is to be dropped from there on."""
        words = [marker_words(side) for side in chunk.lines]
        for total, count in zip(self.words, words):
            total.update(count)
        found = first_mismatch(chunk.lines, self._text.languages, words) if len(chunk.lines) == 2 else None
        if found is None:
            return {}
        index, why = found
        if self._clean.misaligned == OnError.stop:
            path, other = self._text.sides
            raise DataError(
                f"{path}:{chunk.number(0, index)}: from about this line on, {why} {other}; fix the files, or drop "
                "such lines with clean.misaligned=drop"
            )
        return dict.fromkeys(range(index, len(chunk.lines[0])), "misaligned")


def _decoding_error(content: bytes) -> UnicodeDecodeError | None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def shard_file(raw: Path, shard: int, language: str) -> Path:
    """Return the file with the raw lines of a shard in one language."""
    return raw / f"{shard:05d}.{language}.zst"


def digest(line: bytes) -> int:
    """Return 64 bits that depend on a line without white space at its ends."""
    return int.from_bytes(hashlib.blake2b(line.strip(), digest_size=8).digest(), "little")


def bad_lines(chunk: Chunk, checks: Sequence[tuple[str, Check]]) -> dict[int, str]:
    """Return the indices in a chunk of the lines to drop, with reasons."""
    bad = {}
    for index, aligned in enumerate(zip(*chunk.lines) if checks else ()):
        sides = [line.decode() for line in aligned]
        if reason := next((reason for reason, check in checks if check(sides)), None):
            bad[index] = reason
    return bad
