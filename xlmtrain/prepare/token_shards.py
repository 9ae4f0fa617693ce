"""A tokenized shard on disk: for each language its distinct words, and the text as numbers of these.

``{language}.words.zst``    the words (tokens), one a line, sorted by their code points
``{language}.numbers.zst``  little-endian int32: the number of each word's line, from 1, and 0 after each sentence

So what is done to words, counting them or splitting them into subwords, is done once for a distinct word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zstandard

from xlmtrain.prepare.raw_files import open_bytes

LINE_END = 0
"""The number that ends a sentence."""

_DTYPE = np.dtype("<i4")
_COUNT_DTYPE = np.dtype("<i8")


def write_tokenized(part: Path, language: str, words: Sequence[str], numbers: np.ndarray) -> list[int]:
    """Write sentences, given as ``numbers`` of ``words``; returns the numbers of those that occur, as written."""
    present = np.flatnonzero(np.bincount(numbers, minlength=1)).tolist()
    written = sorted((number for number in present if number != LINE_END), key=words.__getitem__)
    renumbered = np.zeros(len(words), _DTYPE)
    renumbered[written] = np.arange(1, len(written) + 1)
    with _compressed(part / f"{language}.words.zst") as file:
        file.write("".join(f"{words[number]}\n" for number in written).encode())
    with _compressed(part / f"{language}.numbers.zst") as file:
        file.write(renumbered[numbers].tobytes())
    return written


def read_words(part: Path, language: str) -> list[str]:
    """What the numbers mean, the line end first."""
    with open_bytes(part / f"{language}.words.zst") as file:
        return ["\n", *file.read().decode().split("\n")[:-1]]


def read_numbers(part: Path, language: str, at_once: int) -> Iterator[np.ndarray]:
    """The text, at most ``at_once`` numbers at a time."""
    with open_bytes(part / f"{language}.numbers.zst") as file:
        while content := file.read(at_once * _DTYPE.itemsize):
            yield np.frombuffer(content, _DTYPE)


def write_word_counts(part: Path, language: str, counts: np.ndarray) -> None:
    """Add how often each word is to count in learning, int64, shape (words,)."""
    counts.astype(_COUNT_DTYPE, copy=False).tofile(part / f"{language}.counts")


def read_word_counts(part: Path, language: str) -> Iterator[tuple[str, int]]:
    """The words that count, sorted by their code points, with their counts."""
    counts = np.fromfile(part / f"{language}.counts", _COUNT_DTYPE).tolist()
    return ((word, count) for word, count in zip(read_words(part, language)[1:], counts) if count)


def _compressed(path: Path) -> zstandard.ZstdCompressionWriter:
    return zstandard.ZstdCompressor(level=1).stream_writer(path.open("wb"))
