"""Prepared data: header, ids, offsets, statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt, replaced
from tests.support.mutations import damaged, damaged_json
from tests.support.tiny import write_corpus, write_header
from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.data.format import Header
from xlmtrain.prepare.statistics import FileStatistics, Statistics
from xlmtrain.runtime.atomic_io import sha256_of
from xlmtrain.text.vocab import Vocab

VOCAB = Vocab([("a", 3), ("b", 2)])
SENTENCES = [[14, 15], [], [15]]
NAMES = ("train.de", "train.de-en.de", "train.de-en.en")


def write_small_dataset(directory: Path) -> Path:
    directory.mkdir()
    VOCAB.write(directory / "vocab")
    (directory / "codes").write_bytes(b"a b 1\n")
    write_header(directory, VOCAB, {name: write_corpus(directory, name, SENTENCES) for name in NAMES})
    return directory


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    return write_small_dataset(place / "data")


def header_json(directory: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((directory / "dataset.json").read_bytes())
    return content


def read_all(directory: Path) -> list[list[int]]:
    """Return the sentences of all corpora, in every way in which they are read, and verify them."""
    dataset = Dataset(directory)
    for split in ("train", "valid"):
        for pair in dataset.pairs(split):
            dataset.pair(split, pair)
        dataset.header.fingerprint_of(split)
    found = []
    for name in dataset.header.corpora:
        corpus = dataset.corpus(name)
        assert len(corpus.lengths()) == len(corpus)
        found += [sentence.tolist() for sentence in sentences_of(corpus)]
        dataset.verify(name)
    dataset.verify_training()
    return found


def sentences_of(corpus: Corpus) -> Iterator[np.ndarray]:
    for index in range(len(corpus)):
        yield corpus.sentence(index)


@given(draw=st.data())
def test_header(data: Path, draw: st.DataObject) -> None:
    """Anything but the fingerprints may be changed together with them."""
    content = draw.draw(damaged_json(header_json(data)))
    with replaced(data / "dataset.json", content):
        header = attempt("dataset.json", lambda: Header.read(data), len(content))
        if header is not None:
            attempt("dataset.json and its files", lambda: read_all(data), len(content))


@pytest.mark.parametrize(
    "offsets", [[0, 1 << 60, 4, 6], [0, 3, -1, 6], [0, -(1 << 60), 4, 6], [0, 1 << 33, 1 << 34, 6]], ids=str
)
def test_offsets_beyond_the_ids(data: Path, offsets: list[int]) -> None:
    """No memory is taken for sentences that the ids cannot have."""
    with replaced(data / "train.de.offsets", np.array(offsets, "<i8").tobytes()):
        corpus = Dataset(data).corpus("train.de")
        assert attempt("offsets beyond the ids", lambda: [*sentences_of(corpus)], 32) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "float64"),
        ("dtype", None),
        ("fingerprint", 3),
        ("languages", {"de": 1}),
        ("vocab_size", 1 << 70),
        ("text", None),
        ("corpora", {"train.de": None}),
    ],
)
def test_header_with_a_value_of_another_type(data: Path, key: str, value: object) -> None:
    content = json.dumps({**header_json(data), key: value}).encode()
    with replaced(data / "dataset.json", content):
        assert attempt("dataset.json", lambda: Header.read(data), len(content)) is None


@given(draw=st.data(), file=st.sampled_from(("train.de.ids", "train.de.offsets", "vocab", "codes")))
def test_files(data: Path, draw: st.DataObject, file: str) -> None:
    """A damaged file, with and without a header that was edited to fit."""
    content = draw.draw(damaged((data / file).read_bytes()))
    header = json.dumps(header_json(data))
    with replaced(data / file, content):
        attempt("files of prepared data", lambda: read_all(data), len(content))
        kind = file.rpartition(".")[2]
        fitting = json.loads(header)
        if kind in ("ids", "offsets"):
            size = {"bytes": len(content), "sha256": sha256_of(data / file)}
            fitting["corpora"]["train.de"][kind] |= size
            fitting["corpora"]["train.de"]["shards"] = []
            fitting["fingerprint"] = ""
        with replaced(data / "dataset.json", json.dumps(fitting).encode()):
            attempt("files of prepared data, header edited", lambda: read_all(data), len(content))


@given(content=damaged_json(asdict(Statistics([FileStatistics("train", "de", None, "text.de", lines=3)], 20, 5))))
def test_statistics(place: Path, content: bytes) -> None:
    path = place / "statistics.json"
    path.write_bytes(content)
    found = attempt("statistics.json", lambda: Statistics.read(path), len(content))
    if found is not None:
        attempt("statistics.json, shown", lambda: found.table(), len(content))
