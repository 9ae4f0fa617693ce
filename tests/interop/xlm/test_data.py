"""The original's binarized data becomes a prepared data set of the same words, ids and sentences, or nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.support.programs import Call
from tests.support.tiny import tiny_config
from tests.support.training import records, train_alone
from tests.support.xlm_corpus import ENGLISH, GERMAN, refusal
from tests.support.xlm_files import COUNTS, WORDS, arrays, write_data
from xlmtrain.config.prepare import TextConfig
from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.errors import DataError
from xlmtrain.interop.xlm import data as data_module
from xlmtrain.interop.xlm.data import ImportedCorpus, import_data
from xlmtrain.text.vocab import EOS, SPECIALS


def imported(
    data: Path, codes: Path | None = None, text: TextConfig | None = None
) -> tuple[Dataset, list[ImportedCorpus]]:
    output = data.parent / "prepared"
    result = import_data(data, output, codes, text or TextConfig())
    return Dataset(output), result


def sentences_of(corpus: Corpus) -> list[list[int]]:
    """Without the EOS at their ends."""
    found = [corpus.sentence(i).tolist() for i in range(len(corpus))]
    assert all(sentence[-1] == EOS for sentence in found)
    return [sentence[:-1] for sentence in found]


def test_words_ids_and_sentences_are_the_same(data: Path) -> None:
    dataset, counts = imported(data)
    assert dataset.languages == ["de", "en"]
    assert dataset.vocab.tokens == WORDS
    assert dataset.vocab.counts.tolist() == COUNTS
    assert dataset.header.dtype == "uint16"
    assert dataset.header.text == asdict(TextConfig())
    for split in ("train", "valid"):
        for name, sentences in (("de", GERMAN), ("en", ENGLISH[:3]), ("de-en.de", GERMAN), ("de-en.en", ENGLISH)):
            assert sentences_of(dataset.corpus(f"{split}.{name}")) == sentences
            assert dataset.header.corpora[f"{split}.{name}"].sources == [f"{split}.{name}.pth"]
        assert [len(corpus) for corpus in dataset.pair(split, "de-en")] == [4, 4]
    assert [count.name for count in counts] == sorted(dataset.header.corpora)
    assert (counts[3].name, counts[3].sentences, counts[3].tokens, counts[3].unknown) == ("train.en", 3, 7, 0)
    assert (counts[0].name, counts[0].tokens, counts[0].unknown) == ("train.de", 11, 1)
    assert counts[0].unknown_rate == 1 / 7


def test_a_corpus_of_many_chunks(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "CHUNK_SENTENCES", 3)
    rng = np.random.default_rng(0)
    sentences = [rng.integers(len(SPECIALS), len(WORDS), rng.integers(0, 6)).tolist() for _ in range(100)]
    write_data(data / "train.de.pth", sentences)
    assert sentences_of(imported(data)[0].corpus("train.de")) == sentences


def test_large_vocabularies(data: Path) -> None:
    for path in data.iterdir():
        path.unlink()
    words = [*SPECIALS, *(f"w{i}" for i in range(70_000))]
    sentences = [[69_999, 14], [70_013]]
    large = arrays(sentences, np.int32)
    write_data(data / "train.de.pth", GERMAN, words, [0] * len(words), **large)
    dataset, _ = imported(data)
    assert dataset.header.dtype == "int32"
    assert sentences_of(dataset.corpus("train.de")) == sentences
    assert dataset.vocab.tokens == words


def test_parts_are_joined_in_order(data: Path) -> None:
    (data / "train.de.pth").unlink()
    parts = [[[14 + i % 4]] * (i + 1) for i in range(11)]
    for i, sentences in enumerate(parts):
        write_data(data / f"train.de.{i}.pth", sentences)
    write_data(data / "train.en.2.pth", [[14]])  # there is a whole file, too
    dataset, _ = imported(data)
    assert sentences_of(dataset.corpus("train.de")) == [sentence for part in parts for sentence in part]
    assert dataset.header.corpora["train.de"].sources == [f"train.de.{i}.pth" for i in range(11)]
    assert sentences_of(dataset.corpus("train.en")) == ENGLISH[:3]


def test_a_missing_part(data: Path) -> None:
    (data / "train.de.pth").unlink()
    for i in (0, 2):
        write_data(data / f"train.de.{i}.pth", [[14]])
    assert "train.de.1.pth: missing, but there is train.de.2.pth" in refusal(data)


def test_codes_and_text_settings(data: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    codes.write_text("H a 3\nHa u 2\n", encoding="utf-8")
    lowercase = TextConfig(lowercase=True, remove_accents=True)
    fingerprints = []
    for i, (given, text) in enumerate([(None, TextConfig()), (codes, TextConfig()), (codes, lowercase)]):
        output = tmp_path / f"prepared{i}"
        import_data(data, output, given, text)
        assert (output / "codes").exists() == (given is not None)
        fingerprints.append(Dataset(output).fingerprint)
    assert (output / "codes").read_bytes() == codes.read_bytes()
    assert Dataset(output).header.text == asdict(lowercase)
    assert len(set(fingerprints)) == 3
    codes.write_text("H a\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a BPE code"):
        import_data(data, tmp_path / "other", codes, TextConfig())
    assert not (tmp_path / "other").exists()


def test_what_is_prepared_trains(data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("valid", 20)):
        for name in ("de", "en", "de-en.de", "de-en.en"):
            write_data(data / f"{split}.{name}.pth", [rng.integers(14, len(WORDS), 6).tolist() for _ in range(count)])
    imported(data)
    train_alone(tiny_config(tmp_path / "run", tmp_path / "prepared", {"train.steps": 10}))
    losses = [record for record in records(tmp_path / "run") if "valid/mlm_ppl" in record]
    assert [record["step"] for record in losses] == [0, 5, 10]
    assert all(1 < record["valid/tlm_ppl"] < 100 for record in losses)
    assert (tmp_path / "run" / "vocab").exists()
    assert not (tmp_path / "run" / "codes").exists()


def test_other_files_are_left_out_aloud(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "best-valid_mlm_ppl.pth").write_bytes(b"")
    (data / "vocab").write_bytes(b"")
    dataset, _ = imported(data)
    assert len(dataset.header.corpora) == 8
    assert [record.message.split(":")[0] for record in caplog.records] == [str(data / "best-valid_mlm_ppl.pth")]


# --- The original's own data, and the program ---


def test_the_originals_own_data_is_its_text(shared: Path, tmp_path: Path) -> None:
    source, output = shared / "reference", tmp_path / "prepared"
    import_data(source / "data", output, None, TextConfig())
    dataset = Dataset(output)
    assert dataset.languages == ["de", "en"]
    assert (output / "vocab").read_bytes() == (source / "data" / "vocab").read_bytes()
    names = {path.name for path in (source / "text").iterdir()}
    assert len(names) == 12
    assert set(dataset.header.corpora) == names
    for name in names:
        lines = (source / "text" / name).read_text(encoding="utf-8").split("\n")[:-1]
        ids = sentences_of(dataset.corpus(name))
        assert ids == [dataset.vocab.encode(line.split()) for line in lines]


def test_the_program(call: Call, data: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    codes.write_text("H a 3\n", encoding="utf-8")
    output = tmp_path / "new" / "prepared"
    lines = call("import_data", f"data={data}", f"output={output}", f"codes={codes}", "lowercase=true").splitlines()
    assert lines[0] == "train.de: 4 sentences, 11 tokens, 14.286% unknown"
    assert len(lines) == 9
    assert lines[-1] == f"imported: {output}"
    dataset = Dataset(output)
    assert dataset.header.text == asdict(TextConfig(lowercase=True))
    assert (output / "codes").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data=nowhere"], 3, "nowhere: no training data"),
        (["codes=nowhere"], 3, "nowhere: cannot read the BPE codes"),
        (["kodes=x"], 2, "no such settings: kodes=x; there are codes, data, lowercase, output, remove_accents"),
        (["lowercase=maybe"], 2, "full_key: lowercase"),
        (["more"], 2, "not understood: more"),
        (["data=???"], 2, "these settings have no value yet: data=..."),
    ],
)
def test_the_program_refuses(
    call: Call, data: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    assert message in call("import_data", f"data={data}", f"output={tmp_path / 'prepared'}", *arguments, code=code)
    assert not (tmp_path / "prepared").exists()


def test_the_program_explains_its_settings(call: Call) -> None:
    explained = call("import_data", "--help")
    for setting in ("data=???", "output=???", "codes=null", "lowercase=false", "remove_accents=false"):
        assert f"  {setting}   [" in explained
