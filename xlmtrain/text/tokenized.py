"""A tokenized shard on disk: for each language its distinct words, and the text as numbers of these.

``{language}.words.zst``    the words (tokens), one a line
``{language}.numbers.zst``  little-endian int32: the number of each word's line, from 1, and 0 after each sentence

So what is done to words, counting them or splitting them into subwords, is done once for a distinct word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zstandard

from xlmtrain.text.files import open_bytes

LINE_END = 0
"""The number that ends a sentence."""

_DTYPE = np.dtype("<i4")


def write_tokenized(part: Path, language: str, words: Sequence[str], numbers: np.ndarray) -> list[str]:
    """Write sentences, given as ``numbers`` of ``words``; returns the words that occur in them."""
    present, _ = occurring(numbers)
    written = [words[number] for number in present.tolist()]
    renumbered = np.zeros(len(words), _DTYPE)
    renumbered[present] = np.arange(1, len(present) + 1)
    with _compressed(part / f"{language}.words.zst") as file:
        file.write("".join(f"{word}\n" for word in written).encode())
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


def occurring(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which numbers of words there are in ``numbers``, rising, and how often."""
    counts = np.bincount(numbers, minlength=1)
    counts[LINE_END] = 0
    present = np.flatnonzero(counts)
    return present, counts[present]


def _compressed(path: Path) -> zstandard.ZstdCompressionWriter:
    return zstandard.ZstdCompressor(level=1).stream_writer(path.open("wb"))
