"""Word vectors come in and go out as others write and read them; the projector gets words beside their languages."""

from __future__ import annotations

import json
import string
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from tests.support.tiny import write_corpus, write_header
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.prepare import TextConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, DataError, UserError
from xlmtrain.interop import word_vectors
from xlmtrain.interop.bundle import PretrainedBundle, Provenance
from xlmtrain.interop.word_vectors import TABLE, language_shares, read_vectors, write_projector, write_vectors
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.vocab import SPECIALS, Vocab

DIM = 4
VOCAB = Vocab([("der", 9), ("Haus@@", 8), ("Haus", 7), ("ö", 6), ("the", 5)])


def model_of(vocab: Vocab, languages: list[str]) -> PretrainedBundle:
    torch.manual_seed(0)
    config = ModelConfig(dim=DIM, layers=1, heads=1, max_positions=8)
    weights = LanguageModel(config, len(vocab), len(languages)).state_dict()
    return PretrainedBundle(config, languages, vocab, weights, TextConfig(), [], Provenance("made here", step=7))


def vectors_file(directory: Path, content: str | bytes) -> Path:
    path = directory / "words.vec"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found(path: Path) -> dict[str, list[float]]:
    """word -> vector of what ``VOCAB`` has of a file."""
    ids, table = read_vectors(path, VOCAB, DIM)
    assert (ids.dtype, table.dtype, table.shape) == (np.int64, np.float32, (len(ids), DIM))
    return {VOCAB.token(i): vector for i, vector in zip(ids.tolist(), table.tolist())}


@pytest.mark.parametrize("header", ["", "8 4\n"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"])  # word2vec's own program ends its lines with a blank
def test_vectors_of_the_words_that_the_vocabulary_has(tmp_path: Path, header: str, end: str) -> None:
    lines = [
        "ö 0.5 -1 2e-3 4",
        "nirgends 1 2 3 4",
        "</s> 9 9 9 9",
        "<special1> 9 9 9 9",
        "DER 9 9 9 9",
        "Haus 1 1 1 1",
        "Haus 2 2 2 2",
        "Haus@@ 3 3 3 3",
        "New York 9 9 9 9",
        "the . 9 9 9 9",
        "unlesbar nan keine zahl x",  # of a word that is not wanted
        "",
    ]
    path = vectors_file(tmp_path, header + "".join(line + end for line in lines))
    assert found(path) == {
        "ö": [0.5, -1.0, np.float32(2e-3).item(), 4.0],
        "Haus": [1.0] * 4,
        "Haus@@": [3.0] * 4,
    }


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("3 5\nder 1 2 3 4 5\n", ConfigError, ":2: a vector of 5 numbers, model.dim is 4"),
        ("nirgends 1 2 3 4\nnirgendwo 1 2 3\n", ConfigError, ":2: a vector of 3 numbers, model.dim is 4"),
        ("der 1 2 3 4\nder\t1\t2\t3\t4\n", ConfigError, ":2: a vector of 0 numbers, model.dim is 4"),
        ("nirgends 1 2 3 4\nder 1 2 3 x\n", DataError, ":2: not a word and 4 numbers"),
        ("der 1 2  4\n", DataError, ":1: not a word and 4 numbers"),
        ("1 4\nder 1 2 nan 4\n", DataError, ":2: a number is not finite"),
        ("der 1 2 -inf 4\n", DataError, ":1: a number is not finite"),
        ("der 1 2 1e39 4\n", DataError, ":1: a number is not finite, or beyond float32"),
        ("der 1 2 3 4\n" * 2000 + "ö", ConfigError, ":2001: a vector of 0 numbers"),
        (b"der 1 2 3 4\n" * 2000 + "ö 1 2 3 4\n".encode("latin-1"), DataError, ":2001: not UTF-8"),
        ("DER 1 2 3 4\n", ConfigError, ": none of its words is in the vocabulary; upper and lower case"),
        ("", ConfigError, ": none of its words is in the vocabulary"),
    ],
)
def test_what_is_no_file_of_vectors(tmp_path: Path, content: str | bytes, error: type[UserError], message: str) -> None:
    path = vectors_file(tmp_path, content)
    with pytest.raises(error) as caught:
        read_vectors(path, VOCAB, DIM)
    assert str(caught.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.vec: cannot read the word vectors: No such file"):
        read_vectors(tmp_path / "no.vec", VOCAB, DIM)
    with pytest.raises(DataError, match="Is a directory"):
        read_vectors(tmp_path, VOCAB, DIM)


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path: Path) -> None:
    line = f"{VOCAB.token(14)} {' '.join(['1'] * DIM)}\n"
    assert list(found(vectors_file(tmp_path, "\ufeff" + line))) == [VOCAB.token(14)]


def test_every_bit_comes_back(tmp_path: Path) -> None:
    """Any float32, the smallest, the largest and minus zero among them; read as gensim reads it, too."""
    vocab = Vocab((f"w{i}@@" if i % 3 else f"ß{i}", 5000 - i) for i in range(3000))
    model = model_of(vocab, ["de", "en"])
    bits = np.random.default_rng(0).integers(0, 1 << 32, (len(vocab), DIM), dtype=np.uint32)
    values = bits.view(np.float32).copy()
    values[~np.isfinite(values)] = 0.1
    values[len(SPECIALS)] = [-0.0, 2.0**-149, -np.finfo(np.float32).max, 1 / 3]
    model.weights[TABLE] = torch.from_numpy(values)
    path = tmp_path / "words.vec"
    write_vectors(model, path)

    ids, table = read_vectors(path, vocab, DIM)
    assert ids.tolist() == list(range(len(SPECIALS), len(vocab)))
    assert table.tobytes() == values[len(SPECIALS) :].tobytes()

    with path.open(encoding="utf-8", newline="\n") as file:
        count, dim = map(int, file.readline().split())
        assert (count, dim) == (3000, DIM)
        for word, expected in zip(vocab.tokens[len(SPECIALS) :], values[len(SPECIALS) :], strict=True):
            parts = file.readline().rstrip().split(" ")
            assert parts[0] == word
            assert np.array([np.float32(part) for part in parts[1:]]).tobytes() == expected.tobytes()
        assert file.read() == ""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """German has the letters a to t and 33 times as much text as English with u to N. ``both`` is as common in either,
    ``mostly`` 19 times and ``partly`` 4 times as common in English, ``drop@@`` no end of a word, ``never`` in no text
    of training."""
    directory = tmp_path_factory.mktemp("mixed")
    letters = string.ascii_letters[:40]
    extra = ["both", "mostly", "partly", "drop@@", "never"]
    vocab = Vocab((word, 1000 - i) for i, word in enumerate([*letters[:30], *extra, *letters[30:]]))
    vocab.write(directory / "vocab")
    german, english = [*letters[:20], "both", "drop@@"], [*letters[20:], "both", "drop@@"]
    texts = {
        "train.de": [*[german] * 60, ["mostly"] * 5],
        "train.de-en.de": [*[german] * 40, ["partly"] * 25],
        "train.en": [*[english] * 2, ["mostly"] * 3],
        "train.de-en.en": [english, ["partly"] * 3],
        "valid.de": [[*english, *["mostly", "partly", "never"] * 1000]],
    }
    corpora = {
        name: write_corpus(directory, name, [vocab.encode(sentence) for sentence in sentences])
        for name, sentences in texts.items()
    }
    write_header(directory, vocab, corpora)
    return Dataset(directory)


def served(logdir: Path) -> tuple[dict[str, Any], list[list[str]], np.ndarray]:
    """What TensorBoard's own plugin makes of a log directory: its configuration, the metadata, the vectors."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    runs.Reload()
    plugin = ProjectorPlugin(TBContext(logdir=str(logdir), data_provider=MultiplexerDataProvider(runs, str(logdir))))
    apps = plugin.get_plugin_apps()
    (run,) = json.loads(Client(apps["/runs"]).get("/runs").data)
    (embedding,) = json.loads(Client(apps["/info"]).get(f"/info?run={run}").data)["embeddings"]
    query = {"run": run, "name": embedding["tensorName"]}
    metadata = Client(apps["/metadata"]).get("/metadata", query_string=query)
    tensor = Client(apps["/tensor"]).get("/tensor", query_string=query)
    assert (metadata.status_code, tensor.status_code) == (200, 200)
    table = np.frombuffer(tensor.data, dtype=np.float32).reshape(embedding["tensorShape"])
    return embedding, [line.split("\t") for line in metadata.data.decode().splitlines()], table


def test_the_projector_shows_words_beside_their_languages(mixed: Dataset, tmp_path: Path) -> None:
    model = model_of(mixed.vocab, ["de", "en"])
    write_projector(model, mixed, tmp_path / "tensorboard" / "projector")
    embedding, (header, *rows), table = served(tmp_path / "tensorboard")
    assert embedding["tensorName"] == "words:00007"
    assert header == ["word", "language", "count"]
    words = [word for word in mixed.vocab.tokens[len(SPECIALS) :] if word != "drop@@"]
    assert [row[0] for row in rows] == words
    assert [int(row[2]) for row in rows] == [mixed.vocab.counts[mixed.vocab.id(word)] for word in words]
    german, english = string.ascii_letters[:20], string.ascii_letters[20:40]
    homes = {**dict.fromkeys(german, "de"), **dict.fromkeys(english, "en"), "mostly": "en"}
    homes |= dict.fromkeys(["both", "partly", "never"], "both")
    assert {word: home for word, home, _ in rows} == homes
    expected = model.weights[TABLE][[mixed.vocab.id(word) for word in words]].numpy()
    assert np.array_equal(table, expected)


def test_the_projector_gets_the_most_frequent_words(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert word_vectors.PROJECTED_WORDS == 10_000
    monkeypatch.setattr(word_vectors, "PROJECTED_WORDS", 31)
    model = model_of(deepcopy(mixed.vocab), ["de", "en"])
    model.vocab.counts[model.vocab.id("N")] = 10**6  # imported vocabularies need not be sorted
    write_projector(model, mixed, tmp_path)
    _, (_, *rows), table = served(tmp_path)
    words = [row[0] for row in rows]
    assert words == ["N", *string.ascii_letters[:30]]
    assert np.array_equal(table, model.weights[TABLE][[model.vocab.id(word) for word in words]].numpy())


def test_languages_count_alike_whatever_their_sizes(mixed: Dataset) -> None:
    shares = language_shares(mixed)
    assert shares.shape == (2, len(mixed.vocab))
    assert shares[:, mixed.vocab.id("a")].tolist() == [1.0, 0.0]
    assert shares[:, mixed.vocab.id("never")].tolist() == [0.0, 0.0]
    for word, german, english in (("both", 100, 3), ("mostly", 5, 3), ("partly", 25, 3)):
        # Tokens of each language, ends of sentences among them.
        rates = german / (100 * 23 + 5 + 25 + 2), english / (3 * 23 + 3 + 3 + 2)
        assert shares[:, mixed.vocab.id(word)] == pytest.approx(np.array(rates) / sum(rates))


def test_other_data_cannot_tell_the_words_languages(mixed: Dataset, tmp_path: Path) -> None:
    for model in (model_of(VOCAB, ["de", "en"]), model_of(mixed.vocab, ["en", "de"]), model_of(mixed.vocab, ["de"])):
        with pytest.raises(DataError, match="another vocabulary or other languages than the model"):
            write_projector(model, mixed, tmp_path / "projector")
        assert not (tmp_path / "projector").exists()
