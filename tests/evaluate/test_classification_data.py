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


def test_a_byte_order_mark_is_no_part_of_a_label_or_a_header(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + XNLI) == read(tmp_path, XNLI)
    assert read(tmp_path, "\ufeff" + XNLI, "en") == read(tmp_path, XNLI, "en")
    assert [example.label for example in read(tmp_path, "\ufeffpos\tgut\r\nneg\tschlecht\r\n")] == ["pos", "neg"]


def test_joined_files(tmp_path: Path) -> None:
    """A byte-order mark inside is dropped; a header inside is refused, also if its names are not known."""
    assert {example.label for example in read(tmp_path, "\ufeff\ufeff" + PLAIN + "\ufeff" + PLAIN)} == {"pos", "neg"}
    with pytest.raises(DataError, match=r"file.tsv:14: a header among the lines"):
        read(tmp_path, ("label\ttext\n" + PLAIN) * 2)
    with pytest.raises(DataError, match=r"file.tsv:13: a header among the lines"):
        read(tmp_path, PLAIN + "label\ttext\n" + PLAIN)
    with pytest.raises(DataError, match=r"file.tsv:1: 'stimmung' is the label of this line only"):
        read(tmp_path, ("stimmung\tsatz\n" + PLAIN) * 2)


def test_xnlis_training_text_spells_a_label_otherwise(tmp_path: Path) -> None:
    assert [example.label for example in read(tmp_path, XNLI_MT)] == ["contradiction", "neutral"]


def test_a_dash_is_a_label_but_in_a_column_of_gold_labels(tmp_path: Path) -> None:
    """MultiNLI writes it where the annotators did not agree; elsewhere it may stand for a class."""
    assert [example.label for example in read(tmp_path, "+\tGut .\n-\tSchlecht .\n")] == ["+", "-"]
    table = "gold_label\tsentence1\tsentence2\n{}\tA .\tB .\nneutral\tC .\tD .\n"
    assert [example.label for example in read(tmp_path, table.format("-"))] == ["neutral"]
    assert len(read(tmp_path, table.format("-").replace("gold_label", "label"))) == 2


def test_paws_x(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The published translations have rows that could not be translated."""
    assert read(tmp_path, PAWS_X) == [Example("1", ("A b", "B a")), Example("0", ("D", "E"))]
    assert "left out 1 lines without text or label, first line 3" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"task.test.de: .*file.tsv is empty"),
        ("only text\n", r"file.tsv:1: a label, a tab and a text are needed, here is no tab: 'only text'"),
        ("a,b\n", r"file.tsv:1: .* here is commas"),
        ('{"label": 1}\n', r"file.tsv:1: .* here is JSON"),
        ("a\tb\nc\td\te\n", r"file.tsv:2: 3 fields between tabs, not 2 as in line 1"),
        (XNLI.replace("de\t", "fr\t"), "no examples of de in"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


# Header lines of GLUE's files, of exports, and headerless files; the values are made up.
LAYOUTS = {
    "SST-2": "sentence\tlabel\nSehr gut .\t1\nSehr schlecht .\t0\n",
    "MRPC": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tEins .\tZwei .\n0\t7\t9\tDrei .\tVier .\n",
    "QQP": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWie ?\tWarum ?\t0\n1\t3\t4\tWo ?\tWo ?\t1\n",
    "QNLI": "index\tquestion\tsentence\tlabel\n0\tWann ?\tEs war .\tnot_entailment\n1\tWo ?\tHier .\tentailment\n",
    "an export": '\ufeff"Text"\t"Label"\r\n"Er sagte ""ja"" ."\t"pos"\r\n"Nein ."\t"neg"\r\n\r\n',
    "one known name": "comment_de\tlabel\nSehr gut .\tpos\nGeht so .\tneg\n",
}
EXPECTED = {
    "SST-2": [Example("1", ("Sehr gut .",)), Example("0", ("Sehr schlecht .",))],
    "MRPC": [Example("1", ("Eins .", "Zwei .")), Example("0", ("Drei .", "Vier ."))],
    "QQP": [Example("0", ("Wie ?", "Warum ?")), Example("1", ("Wo ?", "Wo ?"))],
    "QNLI": [Example("not_entailment", ("Wann ?", "Es war .")), Example("entailment", ("Wo ?", "Hier ."))],
    "an export": [Example("pos", ('Er sagte "ja" .',)), Example("neg", ("Nein .",))],
    "one known name": [Example("pos", ("Sehr gut .",)), Example("neg", ("Geht so .",))],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_are_found_by_their_names(tmp_path: Path, layout: str) -> None:
    assert read(tmp_path, LAYOUTS[layout]) == EXPECTED[layout]


PLAIN = "".join(f"{'pos' if i % 2 else 'neg'}\tDas ist Satz {i} .\n" for i in range(12))
TEXT_FIRST = "".join(f"Das ist Satz {i} .\t{'OTHER' if i % 2 else 'OFFENSE'}\tART {i % 3}\n" for i in range(61))
COLA = "".join(f"src{i % 4}\t{i % 2}\t{'' if i % 2 else '*'}\tThat is sentence {i} .\n" for i in range(20))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TEXT_FIRST,
            r"file.tsv:1: column 1 has 61 different labels in the first 61 lines; .* 'task.columns=\[text, label, _\]'",
        ),
        (COLA, r"file.tsv:1: 4 columns without known names; .* 'task.columns=\[_, label, _, text\]'"),
        ("stimmung\tsatz\n" + PLAIN, r"file.tsv:1: 'stimmung' is the label of this line only, .* a header"),
        (
            "index\tsentence\n0\tEin Satz .\n1\tNoch einer .\n",
            r":1: a header \(index, sentence\) without a known label",
        ),
        ("text\tstance\n" + TEXT_FIRST, r":1: a header \(text, stance\) without a known label; .*\[text, label\]"),
        (
            "".join(f"Satz {i}\tSentence {i}\n" for i in range(30)),
            r"column 1 has 30 different labels in the first 30 lines",
        ),
        ("".join(f"u{i}\t{x}\tsehr gut\t\n" for i, x in enumerate("abab" * 5)), r"\[_, label, text, _\]"),
        ("id\tsentence\n" + "".join(f"{i}\tSatz {i} .\n" for i in range(20)), "no column looks like labels"),
        (PLAIN + "pos\n", r"file.tsv:13: 1 fields between tabs, not 2"),
        (PLAIN + "pos\tEin\tSatz\n", r"file.tsv:13: 3 fields between tabs, not 2"),
        ("pos\tgut\n".encode("utf-16").decode("latin-1"), "UTF-16|not"),
    ],
)
def test_columns_that_are_not_known_are_refused_with_a_proposal(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_columns_are_named_by_the_setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file.tsv"
    for text, columns, first in (
        (TEXT_FIRST, ["text", "label", "_"], Example("OFFENSE", ("Das ist Satz 0 .",))),
        (COLA, ["_", "label", "_", "text"], Example("0", ("That is sentence 0 .",))),
        ("comment\tstance\t_\n" + TEXT_FIRST, ["text", "label", "_"], Example("OFFENSE", ("Das ist Satz 0 .",))),
        ("satz\tstimmung\tart\n" + TEXT_FIRST, ["text", "label", "_"], Example("OFFENSE", ("Das ist Satz 0 .",))),
    ):
        path.write_text(text, encoding="utf-8")
        found = read_examples(path, "de", "task.train.de", columns)
        assert found[0] == first
        assert len(found) == text.count(" .\t") or text is COLA
    assert "file" not in caplog.text or "taken as a header, as no other line has the label 'stimmung'" in caplog.text
    with pytest.raises(DataError, match=r"file.tsv:1: 3 columns, task.columns names 2"):
        read_examples(path, "de", "task.train.de", ["text", "label"])


def test_empty_cells_are_left_out_and_blank_lines_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(tmp_path, "\n" + PLAIN + "pos\t\n\tSatz\n\n")) == 12
    assert "left out 2 lines without text or label, first line 14" in caplog.text


def test_quotes_in_a_text_stay(tmp_path: Path) -> None:
    """One cell that looks quoted is none of a spreadsheet's, where others have quotes as text."""
    text = 'pos\t"Ja", sagte er, "nein"\nneg\t"Ja"\nneg\tEr "\nneg\t"Er sagt ""Ja"" ."\n'
    kept = ['"Ja", sagte er, "nein"', '"Ja"', 'Er "', '"Er sagt ""Ja"" ."']
    assert [example.texts[0] for example in read(tmp_path, text)] == kept


def test_quotes_of_a_spreadsheet_are_none_of_the_text(tmp_path: Path) -> None:
    some = 'label\ttext\npos\tNein .\nneg\t"Er sagt ""Ja"" ."\npos\t"""Ja"""\nneg\tGut .\n'
    kept = ["Nein .", 'Er sagt "Ja" .', '"Ja"', "Gut ."]
    assert [example.texts[0] for example in read(tmp_path, some)] == kept
    commas = 'label\ttext\npos\tNein .\nneg\t"Er sagt ""Ja"" ."\npos\t"Ja, nein"\nneg\tGut .\n'
    assert [example.texts[0] for example in read(tmp_path, commas)] == ["Nein .", 'Er sagt "Ja" .', "Ja, nein", "Gut ."]
    every = 'label\ttext\npos\t"Nein ."\nneg\t"Er sagt ""Ja"" ."\npos\t"""Ja"""\nneg\t"Gut ."\n'
    assert [example.texts[0] for example in read(tmp_path, every)] == kept


def test_labels_of_a_test_that_training_lacks(caplog: pytest.LogCaptureFixture) -> None:
    train = {"en": [Example("pos", ("x",)), Example("neg", ("x",))]}
    for label, message in (
        ("Pos", "'Pos', in the training text 'pos'"),
        ("\uff50os", r"'\\uff50os', in the training text 'pos'"),
        ("gut", "none of its labels is in"),
    ):
        with pytest.raises(DataError, match=f"task.test.de: .*{message}"):
            labels_of("task", {"train": train, "test": {"de": [Example(label, ("y",))]}})
    test = {"de": [Example("pos", ("y",)), Example("gut", ("y",))]}
    assert labels_of("task", {"train": train, "test": test}) == ["gut", "neg", "pos"]
    assert "task.test.de: the labels of 1 of its 2 examples have no training example: gut" in caplog.text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task.train.en: .*nowhere.tsv is not there"):
        read_examples(tmp_path / "nowhere.tsv", "en", "task.train.en")


def test_labels_are_those_of_all_files(tmp_path: Path) -> None:
    one, two = [Example("b", ("x",))], [Example("a", ("y",)), Example("b", ("z",))]
    assert labels_of("task", {"train": {"en": two}, "test": {"de": one}}) == ["a", "b"]
    assert labels_of("task", {"train": {"en": one, "de": [Example("a", ("y",))]}}) == ["a", "b"]
    with pytest.raises(DataError, match=r"only label in task.train.en is 'b'"):
        labels_of("task", {"train": {"en": one}, "test": {"de": two}})
    with pytest.raises(DataError, match=r"task.train: each of its 12 examples has a label of its own"):
        labels_of("task", {"train": {"en": [Example(str(i), ("x",)) for i in range(12)]}})
    with pytest.raises(DataError, match=r"task.train.en has 1, task.test.de has 2"):
        labels_of("task", {"train": {"en": two}, "test": {"de": [Example("a", ("y", "z"))]}})
