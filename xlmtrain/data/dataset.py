"""Prepared text, read where it lies: every process shares the page cache, and start-up does not read the text.

The directory is written by ``tools/prepare.py``; ``dataset.json`` describes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from xlmtrain.data.disk_array import DiskArray
from xlmtrain.data.format import HEADER, OFFSET_DTYPE, Header, Shard, StoredFile
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.text.vocab import EOS, Vocab

_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """The sentences of one language, or of one side of a pair, one after the other.

    ``ids``: (tokens,) uint16 or int32, each sentence ending with EOS. ``offsets``: (sentences + 1,) int64, where each
    sentence starts.
    """

    name: str
    ids: DiskArray
    offsets: DiskArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def sentence(self, index: int) -> np.ndarray:
        """The ids of one sentence with its EOS."""
        return self.sentences([index])[0]

    def sentences(self, indices: Iterable[int]) -> list[np.ndarray]:
        """The ids of several."""
        starts = list(indices)
        bounds = self.offsets.joined(starts, [index + 2 for index in starts]).reshape(-1, 2)
        text = self.ids.joined(bounds[:, 0].tolist(), bounds[:, 1].tolist())
        places = [0, *np.cumsum(bounds[:, 1] - bounds[:, 0]).tolist()]
        return [text[begin:end] for begin, end in pairwise(places)]

    def lengths(self) -> np.ndarray:
        """Tokens of every sentence without its EOS, (sentences,) int64."""
        return np.diff(self.offsets[:]) - 1


class Dataset:
    """A prepared directory: vocabulary, languages and corpora.

    Raises DataError if it is missing, unfinished, of another format, or does not fit its own description.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.header = Header.read(self.path)
        self.languages, self.fingerprint = self.header.languages, self.header.fingerprint
        self.vocab = Vocab.read(self.path / "vocab")
        if self.vocab.fingerprint != self.header.vocab_fingerprint:
            raise DataError(
                f"{self.path / 'vocab'}: its {len(self.vocab)} entries are not the {self.header.vocab_size} that the "
                "ids were made with; put the original file back or prepare the data again"
            )

    def language_id(self, language: str) -> int:
        """The index of a language; raises ConfigError if the data has no such language."""
        if language not in self.languages:
            raise ConfigError(f"language {language!r}: the data in {self.path} has {', '.join(self.languages)}")
        return self.languages.index(language)

    def has(self, name: str) -> bool:
        """Whether there is a corpus of that name, like ``valid.en``."""
        return name in self.header.corpora

    def pairs(self, split: str) -> list[str]:
        """The pairs that ``split`` has text of, like ``de-en``."""
        names = (name.split(".") for name in self.header.corpora)
        return list(dict.fromkeys(name[1] for name in names if name[0] == split and len(name) == 3))

    def corpus(self, name: str) -> Corpus:
        """The corpus ``{split}.{language}`` or ``{split}.{pair}.{language}``."""
        if not self.has(name):
            there = ", ".join(sorted(self.header.corpora))
            raise DataError(f"data.path={self.path}: no corpus {name}; there are {there}")
        header = self.header.corpora[name]
        ids = self._open(header.ids, np.dtype(self.header.dtype))
        offsets = self._open(header.offsets, OFFSET_DTYPE)
        if len(offsets) != header.sentences + 1 or offsets[0] != 0 or offsets[-1] != len(ids):
            raise DataError(f"{self.path / header.offsets.file}: does not describe {header.ids.file}")
        if len(ids) and ids[-1] != EOS:
            raise DataError(f"{self.path / header.ids.file}: does not end with the end-of-sentence id")
        return Corpus(name, ids, offsets)

    def pair(self, split: str, pair: str) -> tuple[Corpus, Corpus]:
        """Both sides of ``{split}.{pair}``, aligned sentence by sentence."""
        first, second = (self.corpus(f"{split}.{pair}.{language}") for language in pair.split("-"))
        if len(first) != len(second):
            raise DataError(
                f"data.path={self.path}: {first.name} has {len(first)} sentences, {second.name} {len(second)}"
            )
        return first, second

    def verify(self, name: str) -> None:
        """Read a corpus from end to end and compare it with its checksums, which opening it does not.

        Raises DataError with the file, and the bytes of the damaged shard.
        """
        corpus, header = self.corpus(name), self.header.corpora[name]
        begin = 0
        for shard in header.shards or [Shard(header.tokens, header.ids.sha256)]:
            end = begin + shard.tokens
            if _sha256(corpus.ids, begin, end) != shard.sha256:
                size = corpus.ids.dtype.itemsize
                raise DataError(
                    f"{self.path / header.ids.file}: damaged between bytes {begin * size} and {end * size}: not what "
                    "was prepared; prepare the data again"
                )
            begin = end
        if begin != header.tokens:
            raise DataError(f"{self.path / HEADER}: damaged header: shards of {begin} tokens in {name}")
        if _sha256(corpus.offsets, 0, len(corpus.offsets)) != header.offsets.sha256:
            raise DataError(
                f"{self.path / header.offsets.file}: damaged: not what was prepared; prepare the data again"
            )

    def verify_training(self) -> None:
        """The same for all that training and its evaluations read."""
        for name in self.header.corpora:
            if not name.startswith("test."):
                self.verify(name)

    def _open(self, stored: StoredFile, dtype: np.dtype) -> DiskArray:
        path = self.path / stored.file
        if not path.is_file():
            raise DataError(f"{path}: missing; prepare the data again")
        if path.stat().st_size != stored.bytes:
            raise DataError(f"{path}: {path.stat().st_size} bytes, dataset.json says {stored.bytes}")
        if stored.bytes % dtype.itemsize:
            raise DataError(f"{path}: {stored.bytes} bytes are no {dtype} numbers, as dataset.json says; prepare again")
        return DiskArray(path, dtype)


def _sha256(numbers: DiskArray, begin: int, end: int) -> str:
    digest = hashlib.sha256()
    for start in range(begin, end, _AT_ONCE):
        digest.update(numbers[start : min(start + _AT_ONCE, end)].data)
    return digest.hexdigest()


def corpus_names(split: str, objective: str, key: str) -> list[str]:
    """The corpora that an objective reads for a language, or for a pair in TLM."""
    return [f"{split}.{key}.{side}" for side in key.split("-")] if objective == "tlm" else [f"{split}.{key}"]


def check_ids(tokens: np.ndarray, vocab_size: int, where: str) -> None:
    """Raise DataError if an id is outside the vocabulary: better here than as a crash in an embedding kernel."""
    if tokens.view(np.uint64).max() < vocab_size:  # a negative id is a large one then
        return
    row, column = np.argwhere((tokens < 0) | (tokens >= vocab_size))[0]
    raise DataError(
        f"{where}: id {tokens[row, column]} in row {row}, position {column}, but the vocabulary has {vocab_size} "
        "entries; the file is damaged or belongs to another vocabulary"
    )
