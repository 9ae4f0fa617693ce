"""The original's binarized data becomes a prepared data set of the same words, ids and sentences, or nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import evil_pickles as evil
from tests.support.programs import Call
from tests.support.tiny import tiny_config
from tests.support.training import records, train_alone
from tests.support.xlm_files import COUNTS, WORDS, arrays, write_data
from xlmtrain.config.prepare import TextConfig
from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.errors import DataError
from xlmtrain.interop.xlm import data as data_module
from xlmtrain.interop.xlm.data import ImportedCorpus, import_data
from xlmtrain.text.vocab import EOS, SPECIALS, UNK

GERMAN = [[14, 15], [], [17], [14, UNK, 15, 15]]
ENGLISH = [[18, 16], [16], [18], [18]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """German, English, and both, for training and validation."""
    directory = tmp_path / "data"
    directory.mkdir()
    for split in ("train", "valid"):
        for name, sentences in (("de", GERMAN), ("en", ENGLISH[:3]), ("de-en.de", GERMAN), ("de-en.en", ENGLISH)):
            write_data(directory / f"{split}.{name}.pth", sentences)
    return directory


def imported(
    data: Path, codes: Path | None = None, text: TextConfig | None = None
) -> tuple[Dataset, list[ImportedCorpus]]:
    output = data.parent / "prepared"
    result = import_data(data, output, codes, text or TextConfig())
    return Dataset(output), result


def refusal(data: Path) -> str:
    """Why ``data`` is not imported; nothing is left behind."""
    before = sorted(data.parent.iterdir())
    with pytest.raises(DataError) as caught:
        import_data(data, data.parent / "prepared", None, TextConfig())
    assert sorted(data.parent.iterdir()) == before
    assert str(caught.value).isprintable()
    return str(caught.value)


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


# --- What cannot be imported ---


def test_dictionaries_that_differ(data: Path) -> None:
    other = [*WORDS[:-1], "The"]
    write_data(data / "valid.en.pth", ENGLISH, other)
    message = refusal(data)
    assert f"{data / 'valid.en.pth'}: its dictionary is not the one of {data / 'train.de.pth'}" in message


def test_sides_that_do_not_belong_together(data: Path) -> None:
    write_data(data / "valid.de-en.en.pth", ENGLISH[:3])
    assert "valid.de-en.de has 4 sentences, valid.de-en.en 3" in refusal(data)
    (data / "valid.de-en.en.pth").unlink()
    assert "valid.de-en.en.pth: missing, the other side is there" in refusal(data)


@pytest.mark.parametrize("name", ["train.en-de.de", "train.de-de.de", "train.de-fr.en"])
def test_names_of_no_pair(data: Path, name: str) -> None:
    write_data(data / f"{name}.pth", GERMAN)
    assert "two languages in alphabetical order" in refusal(data)


def test_other_files_are_left_out_aloud(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "best-valid_mlm_ppl.pth").write_bytes(b"")
    (data / "vocab").write_bytes(b"")
    dataset, _ = imported(data)
    assert len(dataset.header.corpora) == 8
    assert [record.message.split(":")[0] for record in caplog.records] == [str(data / "best-valid_mlm_ppl.pth")]


def test_no_training_data(data: Path) -> None:
    assert "no training data" in refusal(data / "nowhere")
    for path in data.glob("train.*"):
        path.unlink()
    assert "no training data" in refusal(data)


def test_output_that_exists(data: Path) -> None:
    output = data.parent / "prepared"
    output.mkdir()
    (output / "mine").write_text("x")
    assert f"output={output}: exists already" in refusal(data)
    assert (output / "mine").read_text() == "x"


def test_hostile_files(data: Path) -> None:
    path, marker = data / "valid.en.pth", data.parent / "marker"
    path.write_bytes(evil.archive(evil.live(marker)["os.system"][0]))
    assert f"{path}: asks for os.system" in refusal(data)
    assert not marker.exists()


def changed(words: dict[int, str], counts: dict[int, int] | None = None) -> dict[str, Any]:
    return {
        "words": [words.get(i, word) for i, word in enumerate(WORDS)],
        "counts": [(counts or {}).get(i, count) for i, count in enumerate(COUNTS)],
    }


BAD_DICTIONARIES: dict[str, tuple[dict[str, Any], str]] = {
    "special symbols elsewhere": (changed({2: "<mask>"}), "its first 14 words are not <s> to <special9>"),
    "a word twice": (changed({15: "the"}), "a word is there twice"),
    "white space": (changed({15: "das Haus"}), "its vocabulary cannot be kept; it needs words, without white space"),
    "a line end of Unicode": (changed({15: "a\u2028b"}), "without white space"),
    "no letters": (changed({15: ""}), "it needs words"),
    "no UTF-8": (changed({15: "a\udc80"}), "surrogates not allowed"),
    "growing counts": (changed({}, {17: 8}), "by falling counts"),
    "a negative count": (changed({}, {18: -1}), "the count of 'the' is not a number from 0"),
    "a huge count": (changed({}, {14: 1 << 63}), "the count of 'das@@' is not"),
    "a count that is no number": (changed({}, {14: "9"}), "the count of 'das@@' is not"),  # type: ignore[dict-item]
    "nothing but special symbols": ({"words": WORDS[:14], "counts": COUNTS[:14]}, "it needs words"),
}


@pytest.mark.parametrize("name", BAD_DICTIONARIES)
def test_bad_dictionaries(data: Path, name: str) -> None:
    given, message = BAD_DICTIONARIES[name]
    write_data(data / "train.de.pth", [[14]], **given)
    found = refusal(data)
    assert found.startswith(f"{data / 'train.de.pth'}: ")
    assert message in found


GOOD = arrays(GERMAN)
IDS, POSITIONS = GOOD["sentences"], GOOD["positions"]


def shifted(row: int, column: int, by: int) -> np.ndarray:
    positions = POSITIONS.copy()
    positions[row, column] += by
    return positions


def replaced(place: int, by: int, dtype: type = np.uint16) -> np.ndarray:
    ids = IDS.astype(dtype)
    ids[place] = by
    return ids


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no dictionary": ({"dico": None}, "'dico' is missing"),
    "a dictionary of another kind": ({"dico": {}}, "'id2word' is missing"),
    "a dictionary that is a number": ({"dico": 3}, "not binarized data"),
    "no sentences": ({"sentences": None}, "'sentences' is missing"),
    "no positions": ({"positions": None}, "'positions' is missing"),
    "positions without rows": ({"positions": POSITIONS[:0]}, "no sentence in it"),
    "positions in a row": ({"positions": POSITIONS.reshape(-1)}, "positions are not two columns of int64"),
    "positions of int32": ({"positions": POSITIONS.astype(np.int32)}, "positions are not two columns of int64"),
    "positions that are text": ({"positions": "x"}, "positions are not two columns of int64"),
    "sentences of int64": ({"sentences": IDS.astype(np.int64)}, "sentences are not a row of uint16 or int32"),
    "sentences in columns": ({"sentences": IDS[:10].reshape(5, 2)}, "sentences are not a row of uint16 or int32"),
    "sentences that are a number": ({"sentences": 3}, "sentences are not a row of uint16 or int32"),
    "a gap": ({"positions": shifted(2, 0, 1)}, "not one after the other"),
    "an overlap": ({"positions": shifted(2, 0, -1)}, "not one after the other"),
    "a first gap": ({"positions": shifted(0, 0, 1)}, "not one after the other"),
    "an end before the start": ({"positions": POSITIONS[:, ::-1].copy()}, "not one after the other"),
    "rows in another order": ({"positions": POSITIONS[::-1].copy()}, "not one after the other"),
    "an end outside": ({"positions": shifted(3, 1, 1)}, "not one after the other within the 11 ids"),
    "an end far outside": ({"positions": shifted(3, 1, (1 << 63) - 11)}, "not one after the other within the 11 ids"),
    "a negative end": ({"positions": shifted(0, 1, -10)}, "not one after the other within the 11 ids"),
    "ids after the end": ({"sentences": np.append(IDS, IDS[:2])}, "2 ids follow the last sentence"),
    "no ids": ({"sentences": IDS[:0]}, "not one after the other within the 0 ids"),
    "an id outside": ({"sentences": replaced(1, len(WORDS))}, "outside the vocabulary of 19"),
    "a negative id": ({"sentences": replaced(1, -1, np.int32)}, "outside the vocabulary of 19"),
    "a sentence without an end": ({"sentences": replaced(3, 14)}, "one does not end with </s>"),
    "an end in the wrong place": (
        {"positions": np.array([[0, 2]]), "sentences": np.array([14, EOS, 15], np.uint16)},
        "one does not end with </s>",
    ),
    "a sentence of less than nothing": (
        {
            "positions": np.array([[0, 2], [3, 2], [3, 5]]),
            "sentences": np.array([14, 15, EOS, 14, EOS, EOS], np.uint16),
        },
        "not one after the other",
    ),
    "an end inside": ({"sentences": replaced(1, EOS)}, "a special symbol is inside one"),
    "a mask inside": ({"sentences": replaced(1, 5)}, "a special symbol is inside one"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(data: Path, name: str) -> None:
    changes, message = BAD_ARRAYS[name]
    write_data(data / "train.de.pth", GERMAN, **changes)
    found = refusal(data)
    assert found.startswith(f"{data / 'train.de.pth'}: ")
    assert message in found


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
