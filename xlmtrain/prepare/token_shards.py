"""Read and write tokenized shards: for each language the distinct words, and the text as indices of words.

``{language}.words.zst``    the words (tokens), one a line, sorted by code points
``{language}.numbers.zst``  little-endian int32: the line number of each word, from 1, and 0 after each sentence
``{language}.counts``       little-endian int64: how often each word counts in BPE training (training text only)

So words are counted and split into subwords once per distinct word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from xlmtrain.text.text_files import open_bytes, open_zstd_writer
from xlmtrain.text.tokenizer import LINE_END

_DTYPE = np.dtype("<i4")
_COUNT_DTYPE = np.dtype("<i8")


def write_tokenized(directory: Path, language: str, words: Sequence[str], numbers: np.ndarray) -> list[int]:
    """Write sentences, given as ``numbers`` of ``words``; returns the numbers that occur, in the order of the file."""
    present = np.flatnonzero(np.bincount(numbers, minlength=1)).tolist()
    written = sorted((number for number in present if number != LINE_END), key=words.__getitem__)
    renumbered = np.zeros(len(words), _DTYPE)
    renumbered[written] = np.arange(1, len(written) + 1)
    with open_zstd_writer(directory / f"{language}.words.zst") as file:
        file.write("".join(f"{words[number]}\n" for number in written).encode())
    with open_zstd_writer(directory / f"{language}.numbers.zst") as file:
        file.write(renumbered[numbers].tobytes())
    return written


def read_words(directory: Path, language: str) -> list[str]:
    """Return the words by number, the line end first."""
    with open_bytes(directory / f"{language}.words.zst") as file:
        return ["\n", *file.read().decode().split("\n")[:-1]]


def read_numbers(directory: Path, language: str, block: int) -> Iterator[np.ndarray]:
    """Yield the text, at most ``block`` numbers at a time."""
    with open_bytes(directory / f"{language}.numbers.zst") as file:
        while content := file.read(block * _DTYPE.itemsize):
            yield np.frombuffer(content, _DTYPE)


def write_word_counts(directory: Path, language: str, counts: np.ndarray) -> None:
    """Write how often each word counts in BPE training, (words,)."""
    counts.astype(_COUNT_DTYPE, copy=False).tofile(directory / f"{language}.counts")


def read_word_counts(directory: Path, language: str) -> Iterator[tuple[str, int]]:
    """Yield the words with a count above 0, sorted by code points, with their counts."""
    counts = np.fromfile(directory / f"{language}.counts", _COUNT_DTYPE).tolist()
    return ((word, count) for word, count in zip(read_words(directory, language)[1:], counts) if count)
