"""A prepared directory is refused, with the reason, unless it is what it says it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import WORDS, write_corpus, write_header
from xlmtrain.data.dataset import Dataset, check_ids
from xlmtrain.data.format import CorpusWriter, id_dtype
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.text.vocab import EOS, SPECIALS, Vocab


def edit_header(directory: Path, edit: Callable[[dict], None]) -> None:
    path = directory / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_corpora_are_what_was_written(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    assert dataset.languages == ["de", "en"]
    assert len(dataset.vocab) == len(SPECIALS) + 2 * WORDS
    corpus = dataset.corpus("train.de")
    assert len(corpus) == 120
    assert (corpus.lengths() == np.diff(np.flatnonzero(corpus.ids[:] == EOS), prepend=-1) - 1).all()
    assert corpus.ids[-1] == EOS
    first, second = dataset.pair("train", "de-en")
    assert (first.name, second.name) == ("train.de-en.de", "train.de-en.en")
    one, other = first.ids[:], second.ids[:]
    assert np.array_equal(np.where(one == EOS, EOS, one + WORDS), other)


def test_empty_corpus_can_be_opened(tmp_path: Path) -> None:
    vocab = Vocab([("w", 1)])
    vocab.write(tmp_path / "vocab")
    write_header(tmp_path, vocab, {"train.de": write_corpus(tmp_path, "train.de", [])})
    assert len(Dataset(tmp_path).corpus("train.de")) == 0


def refused(directory: Path, name: str = "train.de") -> str:
    with pytest.raises(DataError) as caught:
        Dataset(directory).corpus(name)
    return str(caught.value)


def test_directory_that_was_never_prepared(tmp_path: Path) -> None:
    message = refused(tmp_path / "nowhere")
    assert "nowhere/dataset.json: No such file" in message
    assert "xlmtrain prepare" in message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "corpora": {"a": 1}}'])
def test_damaged_header(own_dataset: Path, content: str) -> None:
    (own_dataset / "dataset.json").write_text(content, encoding="utf-8")
    assert "dataset.json: damaged header" in refused(own_dataset)


def test_header_of_another_format(own_dataset: Path) -> None:
    edit_header(own_dataset, lambda content: content.update(format=99))
    assert "dataset.json: format 99, this program reads 1" in refused(own_dataset)


def test_vocabulary_of_other_data(own_dataset: Path) -> None:
    path = own_dataset / "vocab"
    path.write_text(path.read_text(encoding="utf-8").replace("h ", "hh "), encoding="utf-8")
    assert f"{path}: its 54 entries are not the 54 that the ids were made with" in refused(own_dataset)


def _edit_codes(directory: Path) -> None:
    (directory / "codes").write_text("a b 1\n", encoding="utf-8")


@pytest.mark.parametrize(
    "edit",
    [
        _edit_codes,
        lambda directory: edit_header(directory, lambda content: content["text"].update(lowercase=True)),
        lambda directory: edit_header(directory, lambda c: c["corpora"]["train.de"]["ids"].update(sha256="0" * 64)),
        lambda directory: edit_header(directory, lambda content: content.update(fingerprint="0" * 64)),
    ],
    ids=["codes", "text settings", "a checksum", "the fingerprint"],
)
def test_edited_after_preparation(own_dataset: Path, edit: Callable[[Path], None]) -> None:
    edit(own_dataset)
    assert f"{own_dataset}: its codes are not those that the ids were made with" in refused(own_dataset)


def test_languages_are_those_of_the_corpora(own_dataset: Path) -> None:
    edit_header(own_dataset, lambda content: content["languages"].insert(0, "cs"))
    assert "damaged header (languages ['cs', 'de', 'en']" in refused(own_dataset)


def test_data_older_than_fingerprints_opens(own_dataset: Path) -> None:
    edit_header(own_dataset, lambda content: content.pop("fingerprint"))
    assert Dataset(own_dataset).fingerprint == ""


def test_missing_vocabulary(own_dataset: Path) -> None:
    (own_dataset / "vocab").unlink()
    assert f"{own_dataset / 'vocab'}: cannot read" in refused(own_dataset)


@pytest.mark.parametrize("file", ["train.de.ids", "train.de.offsets"])
def test_missing_file(own_dataset: Path, file: str) -> None:
    (own_dataset / file).unlink()
    assert f"{own_dataset / file}: missing" in refused(own_dataset)


@pytest.mark.parametrize("file", ["train.de.ids", "train.de.offsets"])
def test_cut_file(own_dataset: Path, file: str) -> None:
    path = own_dataset / file
    path.write_bytes(path.read_bytes()[:-2])
    size = path.stat().st_size
    assert f"{path}: {size} bytes, dataset.json says {size + 2}" in refused(own_dataset)


def sharded(directory: Path, shards: list[list[list[int]]]) -> Path:
    """A data set of one corpus in shards."""
    vocab = Vocab([(f"w{i}", 1) for i in range(40)])
    directory.mkdir()
    vocab.write(directory / "vocab")
    (directory / "codes").write_text("a b 1\n", encoding="utf-8")
    with CorpusWriter(directory, "train.de", id_dtype(1000)) as writer:
        for sentences in shards:
            for sentence in sentences:
                writer.append(np.array([*sentence, EOS]), np.array([len(sentence) + 1]))
            writer.end_shard()
        write_header(directory, vocab, {"train.de": writer.finish(["x"])})
    return directory


def test_two_hundred_kinds_of_damage_are_found_and_located(tmp_path: Path) -> None:
    """A flipped bit anywhere, a cut, other types, ids out of range, a wrong index: on opening, or by reading it all."""
    rng = np.random.default_rng(34)
    shards = [[rng.integers(14, 54, rng.integers(1, 9)).tolist() for _ in range(20)] for _ in range(4)]
    path = sharded(tmp_path / "data", shards)
    Dataset(path).verify("train.de")
    ends = np.cumsum([sum(2 * (len(s) + 1) for s in shard) for shard in shards])
    good = {name: (path / f"train.de.{name}").read_bytes() for name in ("ids", "offsets")}
    found = 0
    for case in range(200):
        name = "ids" if case % 3 else "offsets"
        content = bytearray(good[name])
        place = int(rng.integers(len(content)))
        content[place] ^= 1 << int(rng.integers(8))
        if case % 10 == 7:
            content = content[:place]
        (path / f"train.de.{name}").write_bytes(content)
        with pytest.raises(DataError, match=r"train\.de\.(ids|offsets): ") as caught:
            Dataset(path).verify("train.de")
        if "ids: damaged between bytes" in str(caught.value):
            shard = int(np.searchsorted(ends, place, side="right"))
            begin = 0 if shard == 0 else ends[shard - 1]
            assert f"train.de.ids: damaged between bytes {begin} and {ends[shard]}" in str(caught.value)
            found += 1
        (path / f"train.de.{name}").write_bytes(good[name])
    assert found > 100
    Dataset(path).verify("train.de")


def test_a_header_that_misdescribes_the_files_is_refused(tmp_path: Path) -> None:
    path = sharded(tmp_path / "data", [[[14, 15]], [[16]]])
    for edit, message in (
        (lambda content: content.update(dtype="int32"), "10 bytes are no int32 numbers"),
        (lambda content: content["corpora"]["train.de"]["shards"].pop(), "shards of 3 tokens in train.de"),
        (lambda content: content["corpora"]["train.de"]["shards"][0].update(tokens="x"), "damaged header"),
    ):
        before = (path / "dataset.json").read_bytes()
        edit_header(path, edit)
        with pytest.raises(DataError, match=message):
            Dataset(path).verify("train.de")
        (path / "dataset.json").write_bytes(before)


def test_a_corpus_without_shards_is_verified_as_a_whole(own_dataset: Path) -> None:
    Dataset(own_dataset).verify("train.de")
    path = own_dataset / "train.de.ids"
    ids = np.fromfile(path, "<u2")
    ids[3] ^= 1
    ids.tofile(path)
    assert len(Dataset(own_dataset).corpus("train.de"))
    with pytest.raises(DataError, match=rf"train\.de\.ids: damaged between bytes 0 and {2 * len(ids)}"):
        Dataset(own_dataset).verify("train.de")


def test_offsets_of_another_text(own_dataset: Path) -> None:
    path = own_dataset / "train.de.offsets"
    offsets = np.fromfile(path, "<i8")
    offsets[-1] -= 1
    offsets.tofile(path)
    assert f"{path}: does not describe train.de.ids" in refused(own_dataset)


def test_text_that_does_not_end_a_sentence(own_dataset: Path) -> None:
    path = own_dataset / "train.de.ids"
    ids = np.fromfile(path, "<u2")
    ids[-1] = 20
    ids.tofile(path)
    assert f"{path}: does not end with the end-of-sentence id" in refused(own_dataset)


def test_unknown_corpus_names_those_there_are(own_dataset: Path) -> None:
    assert "no corpus test.de; there are train.de, train.de-en.de" in refused(own_dataset, "test.de")


def test_sides_of_unequal_length(tmp_path: Path) -> None:
    vocab = Vocab([("w", 1)])
    vocab.write(tmp_path / "vocab")
    sides = {f"train.de-en.{side}": [[14]] * count for side, count in (("de", 3), ("en", 4))}
    write_header(tmp_path, vocab, {name: write_corpus(tmp_path, name, text) for name, text in sides.items()})
    with pytest.raises(DataError, match=r"train\.de-en\.de has 3 sentences, train\.de-en\.en 4"):
        Dataset(tmp_path).pair("train", "de-en")


def test_unknown_language(tiny_dataset: Path) -> None:
    assert [Dataset(tiny_dataset).language_id(language) for language in ("de", "en")] == [0, 1]
    with pytest.raises(ConfigError, match=r"language 'fr': the data in .* has de, en"):
        Dataset(tiny_dataset).language_id("fr")


@pytest.mark.parametrize("wrong", [54, 65535, -1])
def test_ids_outside_the_vocabulary(wrong: int) -> None:
    tokens = np.full((3, 4), 53)
    check_ids(tokens, 54, "mlm.de, epoch 0, sub-batch 7")
    tokens[1, 2] = wrong
    with pytest.raises(
        DataError, match=f"mlm.de, epoch 0, sub-batch 7: id {wrong} in row 1, position 2, .* has 54 entries"
    ):
        check_ids(tokens, 54, "mlm.de, epoch 0, sub-batch 7")


def test_a_run_is_not_taken_for_its_data(own_dataset: Path) -> None:
    (own_dataset / "config.json").write_text("{}", encoding="utf-8")
    for path in own_dataset.glob("*.ids"):
        path.unlink()
    dataset = Dataset(own_dataset)
    with pytest.raises(DataError, match=r"missing; this is a run; data\.path is prepared data"):
        dataset.corpus(next(iter(dataset.header.corpora)))
