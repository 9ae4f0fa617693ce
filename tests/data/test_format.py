"""The prepared data set on disk: bytes as described, everything that matters in the fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from xlmtrain.data.format import CorpusHeader, CorpusWriter, Header, corpus_name, fingerprint, id_dtype
from xlmtrain.errors import DataError

Chunks = Sequence[tuple[list[int], list[int]]]
CHUNKS: Chunks = (([20, 21, 1, 1], [3, 1]), ([], []), ([22, 1], [2]))


def write_corpus(directory: Path, chunks: Chunks = CHUNKS) -> CorpusHeader:
    with CorpusWriter(directory, "train.en", id_dtype(100)) as writer:
        for ids, lengths in chunks:
            writer.append(np.array(ids, dtype=np.int64), np.array(lengths, dtype=np.int64))
        return writer.finish(["a.en", "b.en"])


def test_ids_and_offsets_are_plain_little_endian_numbers(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path)
    content = (tmp_path / "train.en.ids").read_bytes()
    assert content == bytes([20, 0, 21, 0, 1, 0, 1, 0, 22, 0, 1, 0])
    assert np.fromfile(tmp_path / "train.en.offsets", "<i8").tolist() == [0, 3, 4, 6]
    assert (corpus.sentences, corpus.tokens, corpus.sources) == (3, 6, ["a.en", "b.en"])
    assert (corpus.ids.file, corpus.ids.bytes) == ("train.en.ids", 12)
    assert corpus.ids.sha256 == hashlib.sha256(content).hexdigest()
    assert corpus.offsets.sha256 == hashlib.sha256((tmp_path / "train.en.offsets").read_bytes()).hexdigest()


def test_ids_are_as_small_as_the_vocabulary_allows() -> None:
    assert id_dtype(65535) == np.dtype("<u2")
    assert id_dtype(65536) == np.dtype("<i4")


def test_names() -> None:
    assert corpus_name("train", "en") == "train.en"
    assert corpus_name("valid", "en", "de-en") == "valid.de-en.en"


def test_the_fingerprint_tells_every_part(tmp_path: Path) -> None:
    one = {"train.en": write_corpus(tmp_path)}
    other = {"train.en": write_corpus(tmp_path, chunks=[([20, 22, 1, 1, 22, 1], [3, 1, 2])])}
    split_elsewhere = {"train.en": write_corpus(tmp_path, chunks=[([20, 21, 1, 1, 22, 1], [3, 3])])}
    parts = [
        ("v", "c", {"lowercase": False}, one),
        ("w", "c", {"lowercase": False}, one),
        ("v", "d", {"lowercase": False}, one),
        ("v", "c", {"lowercase": True}, one),
        ("v", "c", {"lowercase": False}, other),
        ("v", "c", {"lowercase": False}, split_elsewhere),
        ("v", "c", {"lowercase": False}, {"train.de": one["train.en"]}),
    ]
    assert len({fingerprint(*part, ["de", "en"]) for part in parts}) == len(parts)
    assert fingerprint(*parts[0], ["de", "en"]) == fingerprint(*parts[0], ["de", "en"])
    no_corpora = [fingerprint("v", "c", {}, {}, languages) for languages in (["de", "en"], ["en", "de"], [])]
    assert len(set(no_corpora)) == 3


def test_the_header_is_read_as_written(tmp_path: Path) -> None:
    header = Header(["en"], "uint16", 100, "ab", {"lowercase": False}, "cd", {"train.en": write_corpus(tmp_path)})
    header.write(tmp_path)
    assert Header.read(tmp_path) == header
    assert json.loads((tmp_path / "dataset.json").read_text())["format"] == 1


def test_what_is_not_a_prepared_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is .*made by xlmtrain prepare"):
        Header.read(tmp_path)
    for content, message in [
        ('{"format": 2}', "format 2"),
        ('{"format": 1, "corpora": {}}', "damaged"),
        ("[1]", "damaged"),
        ("{", "damaged"),
        ('{"format": 1, "corpora": {"train.en": {"ids": 3, "offsets": 4}}}', "damaged"),
    ]:
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(DataError, match=message):
            Header.read(tmp_path)


def test_languages_are_unique_and_those_of_a_corpus_sorted(tmp_path: Path) -> None:
    """A language's id is its index: another order would give every token another language."""
    corpora = {"train.en": write_corpus(tmp_path)}
    for languages, some, good in [
        (["en"], corpora, True),
        (["de", "en"], corpora, False),
        (["de"], corpora, False),
        (["de", "de", "en"], corpora, False),
        (["en", "de"], {}, True),  # a model of another program, in its order
        (["en", "en"], {}, False),
    ]:
        Header(languages, "uint16", 100, "ab", {}, "cd", some).write(tmp_path)
        if good:
            assert Header.read(tmp_path).languages == languages
        else:
            with pytest.raises(DataError, match=r"dataset\.json: damaged header \(languages .* are not unique, or not"):
                Header.read(tmp_path)
