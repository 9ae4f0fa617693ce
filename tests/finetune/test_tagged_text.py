"""Files of words with labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmtrain.errors import DataError
from xlmtrain.finetune.tagged_text import TaggedSentence, read_tagged

EXPECTED = [TaggedSentence(["Im", "Haus"], ["O", "B-LOC"]), TaggedSentence(["#1", "."], ["B-MISC", "O"])]
CONLL = "-DOCSTART- -X- -X- O\n\nIm APPR B-PP O\nHaus NN I-PP B-LOC\n\n\n#1 CARD O B-MISC\n. $. O O"
UD = """# sent_id = 1
# text = Im Haus
1-2\tIm\t_\t_\t_\t_\t_\t_\t_\t_
1\tIn\tin\tADP\t_\t_\t0\troot\t_\t_
2\tdem\tder\tDET\t_\t_\t1\tdet\t_\t_
2.1\twar\tsein\tAUX\t_\t_\t_\t_\t_\t_

# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_conll(tmp_path: Path) -> None:
    assert read_tagged(write(tmp_path / "a.conll", CONLL), "task.train.de") == EXPECTED
    tabs = write(tmp_path / "a.tsv", CONLL.replace(" ", "\t").replace("\n", "\r\n"))
    assert read_tagged(tabs, "task.train.de") == EXPECTED


def test_named_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "germeval.tsv", "1\tHaus\tB-LOC\tO\n2\t.\tO\tO\n")
    assert read_tagged(path, "x", ["_", "text", "label", "_"]) == [TaggedSentence(["Haus", "."], ["B-LOC", "O"])]
    with pytest.raises(DataError, match=r"germeval.tsv:1: 4 columns, task.columns names 2"):
        read_tagged(path, "x", ["text", "label"])


def test_headers_and_byte_order_marks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "Token\tNER_tags\nIm\tO\n\n\ufeffHaus\tB-LOC\n")
    assert read_tagged(path, "x") == [TaggedSentence(["Im"], ["O"]), TaggedSentence(["Haus"], ["B-LOC"])]


def test_universal_dependencies(tmp_path: Path) -> None:
    """Its words, not the forms that are written for several, nor the empty nodes."""
    path = write(tmp_path / "de.conllu", UD)
    assert read_tagged(path, "x") == [TaggedSentence(["In", "dem"], ["ADP", "DET"]), TaggedSentence(["#"], ["SYM"])]
    places = ["_", "text", "_", "_", "_", "_", "_", "label", "_", "_"]
    assert read_tagged(path, "x", places)[0].tags == ["root", "det"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x: no words in"),
        ("\n# nothing\n", "x: no words in"),
        ("Haus\n", ":1: a word and its label are needed, here is 'Haus' only"),
        ("Im O\n\nHaus NN O\n", ":3: 3 columns, not 2 as in line 1"),
        ("Im\tO\n\tO\n", ":2: no word in this line"),
        ("Im\tO\nHaus\t\n", ":2: no label in this line"),
        ("word label\nIm O\n\nword label\n", ":4: a header among the lines, as of files that were joined; remove it"),
        ('"Im"\t"O"\n', ':1: the label "O" is in quotes; write the table without them'),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tagged(write(tmp_path / "a", text), "x")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x: .*nowhere is not there"):
        read_tagged(tmp_path / "nowhere", "x")
