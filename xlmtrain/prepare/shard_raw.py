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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard

from xlmtrain.config.prepare import CleanConfig, OnError, PrepareConfig
from xlmtrain.errors import DataError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.raw_files import BLOCK_BYTES, Chunk, RawText, UnequalLengths, read_chunks
from xlmtrain.text.alignment_check import first_mismatch
from xlmtrain.text.langid import marker_words

CHUNK_BYTES = 1 << 18
DIGEST_DTYPE = np.dtype("<u8")
NO_DIGEST = 0
"""The digest of a blank line, which is equal to no other line."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def shard_task(text: RawText, config: PrepareConfig) -> BuildTask:
    """Return the task for one raw text. Its key changes with the size and time of change of the files."""
    stats = [path.stat() for path in text.paths]
    arguments = {
        "split": text.split,
        "languages": list(text.languages),
        "files": [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in zip(text.paths, stats)],
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
    shard_bytes: int,
    clean: dict[str, Any],
) -> dict[str, Any]:
    """Write the shards of a raw text to ``out``.

    Returns ``shards``: lines and bytes of each; ``lines`` in the raw files; ``dropped``: lines by reason; ``words``:
    :func:`~xlmtrain.text.langid.marker_words` of each side; ``segmented``: lines that contain ``@@``. Raises DataError
    with file and line for text that ``clean`` does not tolerate.
    """
    text = RawText(split, tuple(languages), tuple(Path(path) for path, *_ in files))
    checks = _Checks(text, CleanConfig(**clean))
    with _ShardWriter(out, text.languages, shard_bytes) as writer:
        for chunk in checks.usable():
            writer.write(chunk)
    return {
        "shards": writer.shards,
        "lines": checks.lines,
        "dropped": dict(checks.dropped),
        "words": [dict(words) for words in checks.words],
        "segmented": checks.segmented,
    }


class _Checks:
    """Reads a raw text without its unusable lines, and counts what it finds."""

    def __init__(self, text: RawText, clean: CleanConfig) -> None:
        self._text, self._clean = text, clean
        self.lines = 0
        self.segmented = 0
        self.dropped: Counter[str] = Counter()
        self.words: list[Counter[str]] = [Counter() for _ in text.languages]

    def usable(self) -> Iterator[Chunk]:
        """Yield every chunk without its unusable lines; it may be empty."""
        try:
            for chunk in read_chunks(self._text, CHUNK_BYTES, 4 * self._clean.max_chars):
                self.lines += len(chunk.lines[0])
                chunk = self._drop_misaligned(self._drop_undecodable(self._drop_too_long(chunk)))
                self.segmented += sum(1 for side in chunk.lines for line in side if b"@@ " in line)
                yield chunk
        except UnequalLengths as error:
            if self._clean.misaligned == OnError.stop:
                raise
            self.lines += error.surplus
            self.dropped["mismatch"] += error.surplus

    def _drop_too_long(self, chunk: Chunk) -> Chunk:
        limit = self._clean.max_chars
        if not limit or max(len(line) for side in chunk.lines for line in side) <= limit:
            return chunk
        bad = [
            i
            for i, aligned in enumerate(zip(*chunk.lines))
            if any(len(line) > limit and len(line.decode(errors="ignore")) > limit for line in aligned)
        ]
        return self._without(chunk, bad, "too_many_chars")

    def _drop_undecodable(self, chunk: Chunk) -> Chunk:
        bad: set[int] = set()
        for path, side in zip(self._text.paths, chunk.lines):
            if _decoding_error(b"\n".join(side)) is None:
                continue
            for i, line in enumerate(side):
                if error := _decoding_error(line):
                    if self._clean.invalid_utf8 == OnError.stop:
                        wide = ", but UTF-16 by its first bytes" if line.startswith(_UTF16) else ""
                        raise DataError(
                            f"{path}:{chunk.first + i}: not UTF-8{wide} ({error.reason}); convert the file, e.g. with "
                            "iconv, remove the line, or drop such lines with clean.invalid_utf8=drop"
                        )
                    bad.add(i)
        return self._without(chunk, sorted(bad), "not_utf8")

    def _drop_misaligned(self, chunk: Chunk) -> Chunk:
        """Drop the rest of a chunk of pairs from the first misaligned line on."""
        words = [marker_words(side) for side in chunk.lines]
        for total, count in zip(self.words, words):
            total.update(count)
        found = first_mismatch(chunk.lines, chunk.languages, words) if len(chunk.lines) == 2 else None
        if found is None:
            return chunk
        index, why = found
        if self._clean.misaligned == OnError.stop:
            path, other = self._text.paths
            raise DataError(
                f"{path}:{chunk.first + index}: from about this line on, {why} {other}; fix the files, or drop "
                "such lines with clean.misaligned=drop"
            )
        return self._without(chunk, range(index, len(chunk.lines[0])), "mismatch")

    def _without(self, chunk: Chunk, bad: Sequence[int], reason: str) -> Chunk:
        if not bad:
            return chunk
        self.dropped[reason] += len(bad)
        dropped = set(bad)
        kept = tuple([line for i, line in enumerate(side) if i not in dropped] for side in chunk.lines)
        return replace(chunk, lines=kept, size=sum(len(line) + 1 for side in kept for line in side))


def _decoding_error(content: bytes) -> UnicodeDecodeError | None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def shard_file(raw: Path, shard: int, language: str) -> Path:
    """Return the file with the raw lines of a shard in one language."""
    return raw / f"{shard:05d}.{language}.zst"


def read_digests(raw: Path, shard: int, language: str) -> np.ndarray:
    """Return a digest of every line of a shard, (lines,) uint64. White space at the ends of a line does not matter."""
    return np.fromfile(raw / f"{shard:05d}.{language}.digests", DIGEST_DTYPE)


def line_digest(line: bytes) -> int:
    """Return the digest of a line, without white space at its ends."""
    bare = line.strip()
    return int.from_bytes(hashlib.blake2b(bare, digest_size=8).digest(), "little") if bare else NO_DIGEST


class _ShardWriter:
    """Writes chunks to shards, one after another. ``shards``: lines and bytes of each."""

    def __init__(self, directory: Path, languages: tuple[str, ...], shard_bytes: int) -> None:
        self._directory, self._languages, self._shard_bytes = directory, languages, shard_bytes
        self.shards: list[dict[str, int]] = []
        self._open = ExitStack()
        self._sides: list[tuple[BinaryIO, BinaryIO]] = []

    def __enter__(self) -> _ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def write(self, chunk: Chunk) -> None:
        """Append a chunk; begins a shard if the last one is full."""
        if not self.shards or self.shards[-1]["bytes"] >= self._shard_bytes:
            self._begin()
        for (text, digests), lines in zip(self._sides, chunk.lines):
            text.write(b"".join(line + b"\n" for line in lines))
            digests.write(np.array([line_digest(line) for line in lines], DIGEST_DTYPE).tobytes())
        self.shards[-1]["lines"] += len(chunk.lines[0])
        self.shards[-1]["bytes"] += chunk.size

    def _begin(self) -> None:
        self._open.close()
        number = len(self.shards)
        self.shards.append({"lines": 0, "bytes": 0})
        self._sides = []
        for language in self._languages:
            path = shard_file(self._directory, number, language)
            raw = self._open.enter_context(path.open("wb"))
            text = zstandard.ZstdCompressor(level=1).stream_writer(raw, write_size=BLOCK_BYTES, closefd=False)
            self._open.enter_context(text)
            digests = self._open.enter_context(path.with_suffix(".digests").open("wb"))
            self._sides.append((text, digests))
