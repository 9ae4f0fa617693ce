"""The format of a prepared data set: a directory of plain arrays and a JSON header.

``<corpus>.ids``      ids of all sentences, concatenated, little-endian uint16 or int32, each sentence ending with EOS
``<corpus>.offsets``  start of each sentence in ids, little-endian int64, sentences + 1 entries; the last is the total
``dataset.json``      :class:`Header`: languages, vocabulary, corpora, with size and SHA-256 of each file
``codes``, ``vocab``  BPE codes and vocabulary; or ``tokenizer.json`` and ``token_counts``, little-endian int64 by id

A corpus is named ``{split}.{language}``, or ``{split}.{pair}.{language}`` for one side of a pair: sentence i of one
side translates sentence i of the other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xlmtrain.errors import DataError, damage_as
from xlmtrain.runtime.atomic_io import json_object, sha256_of, write_json
from xlmtrain.runtime.output_paths import DirectoryKind
from xlmtrain.runtime.typed_json import typed
from xlmtrain.text.tokenizer_json import COUNTS_FILE, SPECIAL_TOKENS, TOKENIZER_FILE, TokenizerVocab
from xlmtrain.text.vocab import Vocab

log = logging.getLogger(__name__)
FORMAT = 1
HEADER = "dataset.json"
OFFSET_DTYPE = np.dtype("<i8")
SPLITS = ("train", "valid", "test")
_KINDS = ("ids", "offsets")
_CORPUS = re.compile(r"(train|valid|test)\.([^./]+-[^./]+\.)?[^./]+")
TEXT_FILES = ("codes", "vocab", TOKENIZER_FILE, COUNTS_FILE)
"""Files that turn raw text into ids: codes and vocabulary, or a tokenizer with the counts of its entries."""
PREPARED = DirectoryKind(
    name="a prepared data set",
    header=HEADER,
    keys=frozenset({"format", "languages", "vocab_size", "fingerprint", "corpora"}),
    files=(HEADER, *TEXT_FILES, "statistics.json", *(f"{split}.*.{kind}" for split in SPLITS for kind in _KINDS)),
)


@dataclass(frozen=True)
class StoredFile:
    """A file of the data set: its name in the directory, size, and SHA-256 in hex."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A part of a corpus that was prepared as one unit: its number of tokens, and SHA-256 of its ids in hex."""

    tokens: int
    sha256: str


@dataclass(frozen=True)
class CorpusHeader:
    """One corpus. ``tokens`` includes EOS; ``sources``: names of the raw files; ``shards``: in order, or empty.

    ``documents``: their number, 0 if their borders are not known; each ends with a sentence of EOS alone.
    """

    sentences: int
    tokens: int
    ids: StoredFile
    offsets: StoredFile
    sources: list[str]
    shards: list[Shard] = field(default_factory=list)
    documents: int = 0


@dataclass(frozen=True)
class Header:
    """The data set. A language's id is its index in ``languages``.

    The languages are sorted; those of an imported model, whose header has no corpora, keep the model's order. ``text``:
    settings of the text pipeline, or the special tokens of a tokenizer by role. ``fingerprint`` changes with any id,
    setting, BPE code or vocabulary entry; it is empty in data prepared before there were fingerprints.
    """

    languages: list[str]
    dtype: str
    vocab_size: int
    vocab_fingerprint: str
    text: dict[str, Any]
    fingerprint: str
    corpora: dict[str, CorpusHeader]

    def fingerprint_of(self, split: str) -> str:
        """Return SHA-256 in hex of the vocabulary and a split's ids; losses on equal ones are comparable."""
        ids = {name: corpus.ids.sha256 for name, corpus in sorted(self.corpora.items()) if name.startswith(f"{split}.")}
        return hashlib.sha256(json.dumps([self.vocab_fingerprint, ids]).encode()).hexdigest()

    @classmethod
    def of(
        cls, directory: Path, vocab: Vocab, languages: list[str], text: dict[str, Any], corpora: dict[str, CorpusHeader]
    ) -> Header:
        """Return the header of the files in ``directory``, which may lack ``codes``."""
        mark = fingerprint(vocab.fingerprint, _codes_sha256(directory), text, corpora, languages)
        dtype = id_dtype(len(vocab)).name
        return cls(languages, dtype, len(vocab), vocab.fingerprint, text, mark, corpora)

    def write(self, directory: Path) -> None:
        """Write ``dataset.json``; without ``documents`` where there are none, as versions before wrote it."""
        content = asdict(self)
        for corpus in content["corpora"].values():
            if not corpus["documents"]:
                del corpus["documents"]
        write_json(directory / HEADER, {"format": FORMAT, **content})

    @classmethod
    def read(cls, directory: str | Path) -> Header:
        """Read ``dataset.json``; raises DataError if the directory is no prepared data set of this format."""
        path = Path(directory) / HEADER
        if not path.is_file():
            raise DataError(f"{path}: No such file or directory; is {directory} made by xlmtrain prepare?")
        with damage_as(DataError, f"{path}: damaged header", "; prepare the data again"):
            content = json_object(path)
            if (version := content.pop("format")) != FORMAT:
                raise DataError(f"{path}: format {version}, this program reads {FORMAT}; prepare the data again")
            header = typed(cls, {"fingerprint": "", **content})
            header.check()
            return header

    def check(self) -> None:
        """Raise ValueError if the parts do not fit together, as in a file that was edited."""
        languages, own = self.languages, sorted({name.rpartition(".")[2] for name in self.corpora})
        if len(set(languages)) < len(languages) or (self.corpora and languages != own):
            raise ValueError(f"languages {languages} are not unique, or not {own}, those of the corpora, sorted")
        if np.dtype(self.dtype) not in (np.uint16, np.int32):  # earlier versions also wrote <u2
            raise ValueError(f"dtype: {self.dtype} is neither uint16 nor int32")
        for name, corpus in self.corpora.items():
            if (corpus.ids.file, corpus.offsets.file) != (f"{name}.ids", f"{name}.offsets"):
                raise ValueError(f"corpora.{name}: its files have other names")
            if not _CORPUS.fullmatch(name):
                raise ValueError(f"corpora.{name}: not a name like train.de or train.de-en.de")


def open_verified(directory: str | Path) -> tuple[Header, Vocab]:
    """Read the header and the vocabulary of prepared data, or of the copies in a run directory.

    Raises DataError if something that decides the ids is not what they were made with: vocabulary, codes, languages,
    text settings. The ids themselves are not read. Missing codes are a warning: only raw text needs them.
    """
    directory = Path(directory)
    header = Header.read(directory)
    vocab = read_vocab(directory, header.text, header.vocab_size)
    is_tokenized = isinstance(vocab, TokenizerVocab)
    advice = "put the original files back, or prepare the data again"
    if vocab.fingerprint != header.vocab_fingerprint or len(vocab) != header.vocab_size:
        raise DataError(
            f"{directory / (TOKENIZER_FILE if is_tokenized else 'vocab')}: its {len(vocab)} entries "
            f"are not the {header.vocab_size} that the ids were made with; {advice}"
        )
    parts = (vocab.fingerprint, _codes_sha256(directory), header.text, header.corpora)
    # Version 0.1.0 did not sign the languages of imported models.
    if header.fingerprint in ("", fingerprint(*parts, header.languages), fingerprint(*parts, ())):
        return header, vocab
    if not is_tokenized and not (directory / "codes").is_file():
        log.warning("%s: missing, so raw text cannot be read; put the original file back", directory / "codes")
        return header, vocab
    raise DataError(
        f"{directory}: its codes are not those that the ids were made with, or the text settings, languages or "
        f"checksums in {HEADER} were edited; {advice}"
    )


def read_vocab(directory: Path, text: dict[str, Any], size: int) -> Vocab:
    """Read the vocabulary, or the tokenizer with ``size`` entries that ``text`` names the special tokens of.

    Raises DataError if a file is missing or damaged.
    """
    names = text.get(SPECIAL_TOKENS)
    if names is None:
        return Vocab.read(directory / "vocab")
    with damage_as(DataError, f"{directory / HEADER}: damaged header", "; prepare the data again"):
        names = typed(dict[str, str], names, f"text.{SPECIAL_TOKENS}")
        return TokenizerVocab.read_from(directory, names, size)


def _codes_sha256(directory: Path) -> str:
    codes = directory / "codes"
    return sha256_of(codes) if codes.is_file() else ""


def corpus_name(split: str, language: str, pair: str | None = None) -> str:
    """Return the key of a corpus in ``Header.corpora``, which is also the stem of its files."""
    return f"{split}.{pair}.{language}" if pair else f"{split}.{language}"


def id_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest dtype that holds the ids."""
    return np.dtype("<u2" if vocab_size < 65536 else "<i4")


def fingerprint(
    vocab_fingerprint: str,
    codes_sha256: str,
    text: dict[str, Any],
    corpora: dict[str, CorpusHeader],
    languages: Sequence[str],
) -> str:
    """Return SHA-256 in hex of everything that determines the ids and their meaning.

    ``languages`` count if there are no corpora, whose names have them.
    """
    checksums = {name: (corpus.ids.sha256, corpus.offsets.sha256) for name, corpus in sorted(corpora.items())}
    parts = [vocab_fingerprint, codes_sha256, text, checksums or list(languages) or {}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class CorpusWriter:
    """Context manager that writes one corpus chunk by chunk; :meth:`finish` returns its header."""

    def __init__(self, directory: Path, name: str, dtype: np.dtype, documents: bool = False) -> None:
        """``documents``: count the sentences of EOS alone as ends of documents."""
        self._dtype, self._ends_documents, self._documents, self._in_document = dtype, documents, 0, False
        self._ids = _HashingFile(directory / f"{name}.ids")
        self._offsets = _HashingFile(directory / f"{name}.offsets")
        self._offsets.write(np.zeros(1, OFFSET_DTYPE).tobytes())
        self._sentences = self._tokens = 0
        self._shards: list[Shard] = []
        self._shard_begin, self._shard_hash = 0, hashlib.sha256()

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ids.close()
        self._offsets.close()

    def append(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        """Append sentences: concatenated ``ids``, (sum of lengths,), and ``lengths`` of each with EOS, (sentences,)."""
        assert len(ids) == lengths.sum(), "ids and lengths disagree"
        content = ids.astype(self._dtype, copy=False).tobytes()
        self._ids.write(content)
        self._shard_hash.update(content)
        self._offsets.write((self._tokens + np.cumsum(lengths)).astype(OFFSET_DTYPE).tobytes())
        self._sentences += len(lengths)
        self._tokens += len(ids)
        if self._ends_documents and len(lengths):
            has_words = lengths > 1
            self._documents += int(np.count_nonzero(np.diff(has_words, prepend=self._in_document) & ~has_words))
            self._in_document = bool(has_words[-1])

    def end_shard(self) -> None:
        """Record what was appended since the last call as a shard."""
        self._shards.append(Shard(self._tokens - self._shard_begin, self._shard_hash.hexdigest()))
        self._shard_begin, self._shard_hash = self._tokens, hashlib.sha256()

    def finish(self, sources: Sequence[str]) -> CorpusHeader:
        """Close the files and return the header; ``sources``: names of the raw files."""
        files = self._ids.close(), self._offsets.close()
        return CorpusHeader(self._sentences, self._tokens, *files, list(sources), self._shards, self._documents)


class _HashingFile:
    """A new file that keeps track of its size and checksum."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb")
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._bytes += len(content)

    def close(self) -> StoredFile:
        self._file.close()
        return StoredFile(self._path.name, self._bytes, self._hash.hexdigest())
