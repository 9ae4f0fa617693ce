"""Labelled text as it comes: plain lines, and the tables of XNLI and PAWS-X as published."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from xlmtrain.errors import DataError
from xlmtrain.evaluate.classification_data import Example, labels_of, read_examples

# As published: XNLI-1.0's columns (those that are not read are shortened), XNLI-MT's, PAWS-X's.
XNLI = (
    "language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1\tsentence2\tpromptID\n"
    "de\tneutral\t( a )\t( b )\tUnd er hat gesagt.\tEr rief an.\t1\n"
    "en\tcontradiction\t\t\tAnd he said.\tHe said nothing.\t1\n"
    "de\t-\t\t\tOhne\tUrteil\t2\n"
    'de\tentailment\t\t\tEin "Zitat.\tZitat\t3\n'
)
XNLI_MT = "premise\thypo\tlabel\nEins .\tZwei .\tcontradictory\nDrei\tVier\tneutral\n"
PAWS_X = "id\tsentence1\tsentence2\tlabel\n1\tA b\tB a\t1\n2\tNS\tC\t0\n3\tD\tE\t0\n"


def read(tmp_path: Path, text: str, language: str = "de") -> list[Example]:
    path = tmp_path / "file.tsv"
    path.write_text(text, encoding="utf-8")
    return read_examples(path, language, "task.test.de")


def test_lines_of_label_and_text(tmp_path: Path) -> None:
    assert read(tmp_path, "weather/find\tWie heiß ist es?\n0\t label \n") == [
        Example("weather/find", ("Wie heiß ist es?",)),
        Example("0", ("label",)),
    ]
    assert read(tmp_path, "yes\tA\tB\n") == [Example("yes", ("A", "B"))]


def test_compressed_files_are_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "file.tsv.xz"
    path.write_bytes(lzma.compress(b"a\tEins\n"))
    assert read_examples(path, "de", "task.train.de") == [Example("a", ("Eins",))]


def test_xnli_has_all_languages_in_one_file(tmp_path: Path) -> None:
    """Only the language's rows, none without a gold label; quotes are ordinary characters."""
    assert read(tmp_path, XNLI) == [
        Example("neutral", ("Und er hat gesagt.", "Er rief an.")),
        Example("entailment", ('Ein "Zitat.', "Zitat")),
    ]
    assert read(tmp_path, XNLI, "en") == [Example("contradiction", ("And he said.", "He said nothing."))]


def test_xnlis_training_text_spells_a_label_otherwise(tmp_path: Path) -> None:
    assert [example.label for example in read(tmp_path, XNLI_MT)] == ["contradiction", "neutral"]


def test_paws_x(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The published translations have rows that could not be translated."""
    assert read(tmp_path, PAWS_X) == [Example("1", ("A b", "B a")), Example("0", ("D", "E"))]
    assert "left out 1 lines without text or label, first line 3" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "task.test.de: no examples of de in"),
        ("only text\n", r"file.tsv:1: 1 fields between tabs; expected label and text"),
        ("a\tb\nc\td\te\n", r"file.tsv:2: 3 fields between tabs, not 2 as in line 1"),
        (XNLI.replace("de\t", "fr\t"), "no examples of de in"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task.train.en: .*nowhere.tsv is not there"):
        read_examples(tmp_path / "nowhere.tsv", "en", "task.train.en")


def test_labels_are_those_of_all_files(tmp_path: Path) -> None:
    one, two = [Example("b", ("x",))], [Example("a", ("y",)), Example("b", ("z",))]
    assert labels_of("task", {"train": {"en": one}, "test": {"de": two}}) == ["a", "b"]
    with pytest.raises(DataError, match=r"only label in task.train.en is 'b'"):
        labels_of("task", {"train": {"en": one}})
    with pytest.raises(DataError, match=r"task.train.en has 1, task.test.de has 2"):
        labels_of("task", {"train": {"en": two}, "test": {"de": [Example("a", ("y", "z"))]}})
