"""A prepared data set, read from disk on demand: processes share the page cache, and opening it reads no text.

The format is described in :mod:`xlmtrain.data.format`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from xlmtrain.data.disk_array import DiskArray
from xlmtrain.data.format import HEADER, OFFSET_DTYPE, Shard, StoredFile, open_verified
from xlmtrain.errors import ConfigError, DataError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """The sentences of one language, or of one side of a pair.

    ``ids``: (tokens,) uint16 or int32, all sentences concatenated, each ending with EOS. ``offsets``: (sentences + 1,)
    int64, the start of each sentence. ``documents``: their number, 0 if their borders are not known.
    """

    name: str
    ids: DiskArray
    offsets: DiskArray
    documents: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def sentence(self, index: int) -> np.ndarray:
        """Return the ids of one sentence, EOS included."""
        return self.sentences([index])[0]

    def sentences(self, indices: Iterable[int]) -> list[np.ndarray]:
        """Return the ids of several sentences, EOS included."""
        starts = list(indices)
        bounds = self.offsets.gather_spans(starts, [index + 2 for index in starts]).reshape(-1, 2)
        return self.spans(bounds[:, 0], bounds[:, 1])

    def lengths(self) -> np.ndarray:
        """Return the tokens of each sentence without EOS, (sentences,) int64."""
        return np.diff(self.offsets[:]) - 1

    def document_pieces(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where pieces of documents begin and end in ``ids``, each (pieces,) int64, in order.

        A document of more than ``length`` tokens is cut into as few pieces of about the same size as it takes. The
        sentence of EOS alone at its end is in none of them.
        """
        ends = [np.zeros(0, np.int64)]
        for start in range(0, len(self), _CHUNK):
            offsets = self.offsets[start : start + _CHUNK + 1]
            ends.append(offsets[:-1][np.diff(offsets) == 1])
        end = np.concatenate([*ends, [len(self.ids)]])
        begin = np.concatenate([[0], end[:-1] + 1])
        size = end - begin
        counts = -(-size // length)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        begin, size, counts = (np.repeat(values, counts) for values in (begin, size, counts))
        return begin + place * size // counts, begin + (place + 1) * size // counts

    def spans(self, begins: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
        """Return the ids from each of ``begins`` to before the one of ``ends``."""
        text, bounds = self.ids.gather_spans(begins.tolist(), ends.tolist()), [0, *np.cumsum(ends - begins).tolist()]
        return [text[begin:end] for begin, end in pairwise(bounds)]


class Dataset:
    """A prepared directory: vocabulary, languages and corpora.

    Raises DataError if it is missing, incomplete, of another format, or not what its ids were made with.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.header, self.vocab = open_verified(self.path)
        self.languages, self.fingerprint = self.header.languages, self.header.fingerprint

    def language_id(self, language: str) -> int:
        """Return the index of a language; raises ConfigError if the data lacks it."""
        if language not in self.languages:
            raise ConfigError(f"language {language!r}: the data in {self.path} has {', '.join(self.languages)}")
        return self.languages.index(language)

    def has(self, name: str) -> bool:
        """Return True if there is a corpus of that name, like ``valid.en``."""
        return name in self.header.corpora

    def pairs(self, split: str) -> list[str]:
        """Return the pairs in ``split``, like ``de-en``."""
        names = (name.split(".") for name in self.header.corpora)
        return list(dict.fromkeys(name[1] for name in names if name[0] == split and len(name) == 3))

    def corpus(self, name: str) -> Corpus:
        """Open the corpus ``{split}.{language}`` or ``{split}.{pair}.{language}``; raises DataError if that fails."""
        if not self.has(name):
            available = ", ".join(sorted(self.header.corpora))
            raise DataError(f"data.path={self.path}: no corpus {name}; there are {available}")
        header = self.header.corpora[name]
        ids = self._open(header.ids, np.dtype(self.header.dtype))
        offsets = self._open(header.offsets, OFFSET_DTYPE)
        if len(offsets) != header.sentences + 1 or offsets[0] != 0 or offsets[-1] != len(ids):
            raise DataError(f"{self.path / header.offsets.file}: does not describe {header.ids.file}")
        if len(ids) and ids[-1] != self.vocab.special.eos:
            raise DataError(f"{self.path / header.ids.file}: does not end with the end-of-sentence id")
        return Corpus(name, ids, offsets, header.documents)

    def pair(self, split: str, pair: str) -> tuple[Corpus, Corpus]:
        """Open both sides of ``{split}.{pair}``, which are aligned sentence by sentence.

        ``pair`` may be a direction, ``en-de``: the sides are in its order.
        """
        first, second = map(self.corpus, corpus_names(split, "mt", pair))
        if len(first) != len(second):
            raise DataError(f"{self.path}: {first.name} has {len(first)} sentences, {second.name} {len(second)}")
        return first, second

    def verify(self, name: str) -> None:
        """Read a whole corpus and compare it with its checksums. Raises DataError as :meth:`verify_training`."""
        for part in self._checked_parts(name):
            part.verify()

    def verify_training(self, rank: int = 0, world_size: int = 1) -> None:
        """Verify this process's share of every corpus that training and its evaluations read: each n-th shard.

        Raises DataError with the file, and the bytes of the damaged shard.
        """
        names = [name for name in self.header.corpora if not name.startswith("test.")]
        for part in [part for name in names for part in self._checked_parts(name)][rank::world_size]:
            part.verify()

    def _checked_parts(self, name: str) -> Iterator[_CheckedPart]:
        """Yield the parts of a corpus that have a checksum: its shards, then its offsets."""
        corpus, header = self.corpus(name), self.header.corpora[name]
        shards = header.shards or [Shard(header.tokens, header.ids.sha256)]
        ends = [*accumulate(shard.tokens for shard in shards)]
        if ends[-1] != header.tokens:
            raise DataError(f"{self.path / HEADER}: damaged header: shards of {ends[-1]} tokens in {name}")
        for shard, end in zip(shards, ends):
            yield _CheckedPart(corpus.ids, end - shard.tokens, end, shard.sha256)
        yield _CheckedPart(corpus.offsets, 0, len(corpus.offsets), header.offsets.sha256)

    def _open(self, stored: StoredFile, dtype: np.dtype) -> DiskArray:
        path = self.path / stored.file
        if not path.is_file():
            is_run = (self.path / "config.json").is_file()
            hint = "this is a run; data.path is prepared data, such as its own" if is_run else "prepare the data again"
            raise DataError(f"{path}: missing; {hint}")
        if path.stat().st_size != stored.bytes:
            raise DataError(f"{path}: {path.stat().st_size} bytes, dataset.json says {stored.bytes}")
        if stored.bytes % dtype.itemsize:
            raise DataError(f"{path}: {stored.bytes} bytes are no {dtype} numbers, as dataset.json says; prepare again")
        return DiskArray(path, dtype)


@dataclass(frozen=True)
class _CheckedPart:
    """Numbers ``begin`` to ``end - 1`` of a file, and the SHA-256 of their bytes in hex."""

    numbers: DiskArray
    begin: int
    end: int
    sha256: str

    def verify(self) -> None:
        """Read the numbers and raise DataError if they have another checksum."""
        digest = hashlib.sha256()
        for start in range(self.begin, self.end, _CHUNK):
            digest.update(self.numbers[start : min(start + _CHUNK, self.end)].data)
        if digest.hexdigest() != self.sha256:
            size = self.numbers.dtype.itemsize
            raise DataError(
                f"{self.numbers.path}: damaged between bytes {self.begin * size} and {self.end * size}: not what was "
                "prepared; prepare the data again"
            )


def corpus_names(split: str, objective: str, key: str) -> list[str]:
    """Return the corpora that an objective reads for ``key``: a language, a pair in TLM, a direction in MT, BT."""
    if objective == "bt":
        return [f"{split}.{key.rpartition('-')[2]}"]
    if objective not in ("tlm", "mt"):
        return [f"{split}.{key}"]
    sides = key.split("-")
    pair = key if objective == "tlm" else "-".join(sorted(sides))
    return [f"{split}.{pair}.{side}" for side in sides]


def check_ids(tokens: np.ndarray, vocab_size: int, where: str) -> None:
    """Raise DataError if an id is outside the vocabulary, before an embedding kernel fails on it."""
    if tokens.view(np.uint64).max() < vocab_size:  # negative ids become large ones
        return
    row, column = np.argwhere((tokens < 0) | (tokens >= vocab_size))[0]
    raise DataError(
        f"{where}: id {tokens[row, column]} in row {row}, position {column}, but the vocabulary has {vocab_size} "
        "entries; the file is damaged or belongs to another vocabulary"
    )
