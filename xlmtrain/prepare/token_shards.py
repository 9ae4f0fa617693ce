"""Read and write tokenized shards: for each language the distinct words, and the text as indices of words.

``{language}.words.zst``    the words (tokens), one a line, sorted by code points
``{language}.numbers.zst``  little-endian int32: the line number of each word, from 1, and 0 after each sentence
``{language}.counts``       little-endian int64: how often each word counts in BPE training (training text only)
``{language}.digests``      little-endian uint64: a digest of the tokens of each sentence

So words are counted and split into subwords once per distinct word, and sentences are compared as they are trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from xlmtrain.text.text_files import open_bytes, open_zstd_writer
from xlmtrain.text.tokenizer import LINE_END

DIGEST_DTYPE = np.dtype("<u8")

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
    digests = _digests([words[number] for number in written], renumbered[numbers])
    digests.astype(DIGEST_DTYPE, copy=False).tofile(directory / f"{language}.digests")
    return written


def _digests(words: Sequence[str], numbers: np.ndarray) -> np.ndarray:
    """Return 64 bits that depend on the words of a sentence and on their order, (sentences,) uint64.

    ``numbers``: of ``words``, from 1, with :data:`LINE_END` after each sentence. The digest is the sum over the places
    of a sentence of a hash (SplitMix64's) of the word there and the place.
    """
    hashes = [hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words]
    values = np.concatenate([np.zeros(1, DIGEST_DTYPE), np.frombuffer(b"".join(hashes), DIGEST_DTYPE)])[numbers]
    ends = np.flatnonzero(numbers == LINE_END)
    begins = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    places = np.arange(len(numbers)) - np.repeat(begins, ends + 1 - begins)
    values += places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(multiplier)
    sums: np.ndarray = np.add.reduceat(values ^ (values >> np.uint64(31)), begins) if len(ends) else values
    return sums


def read_digests(directory: Path, language: str) -> np.ndarray:
    """Return a digest of every sentence, (sentences,) uint64; sentences of the same tokens have the same."""
    return np.fromfile(directory / f"{language}.digests", DIGEST_DTYPE)


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
