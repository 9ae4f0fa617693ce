"""Raw text in tables: the same text in any form makes the same bytes, and what is wrong is named with its place."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
import zstandard

from tests.support.samples import LAUGHS, OUTSIDE
from xlmtrain.config.prepare import BpeConfig, CleanConfig, OnError, PrepareConfig, SplitConfig
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare import arrow_files, table_files
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.raw_files import find_texts, read_chunks, without_repeats
from xlmtrain.prepare.shard_raw import shard_task

pa = pytest.importorskip("pyarrow", reason="what reads Parquet and Arrow is an extra")
pq = pytest.importorskip("pyarrow.parquet", reason="what reads Parquet and Arrow is an extra")

PAIRS = [
    ("Die Katze schläft.", "The cat sleeps."),
    ('Er sagte: „Ja“, "nein", & <b>ging</b>.', 'He said "yes", "no" & <b>left</b>.'),
    ("", ""),
    ('"Wirklich?"', '"Really?"'),
    ("Ein\u2028Satz\u0085, zwei Zeilen?", "One\u2028sentence\u0085, two lines?"),
    ("  weiß, grün; gelb | blau  ", "white, green; yellow | blue"),
    ('5" Rohr, "A" und "B"', '5" pipe, "A" and "B"'),
    *((f"Satz {i} ist lang und gut.", f"Sentence {i} is long and good.") for i in range(300)),
]
NESTED = {"de": "translation.de", "en": "translation.en"}


def json_lines(nested: bool = False, ascii_only: bool = True) -> bytes:
    rows: Iterable[Any] = ({"id": 1, "de": de, "en": en} for de, en in PAIRS)
    if nested:
        rows = ({"id": 1, "translation": {"de": de, "en": en}} for de, en in PAIRS)
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows).encode()


def table(delimiter: str, quoting: Any = csv.QUOTE_MINIMAL, header: bool = True) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting)
    writer.writerows([["en", "de"]] * header + [[en, de] for de, en in PAIRS])
    return stream.getvalue().encode()


def tmx(encoding: str = "UTF-8") -> bytes:
    units = "".join(
        f'<tu><note>x</note><tuv xml:lang="EN-us"><seg>{escape(en)}</seg></tuv>\n'
        f'<tuv xml:lang="de"><seg><ph>code</ph>{escape(de)}</seg></tuv></tu>\n'
        for de, en in PAIRS
    )
    head = f'<?xml version="1.0" encoding="{encoding}"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n'
    return f"{head}<tmx><header/><body>{units}</body></tmx>".encode(encoding)


def arrow_table(kind: str) -> Any:
    german, english = ([pair[side] for pair in PAIRS] for side in (0, 1))
    if kind == "nested":
        return pa.table({"id": [*range(len(PAIRS))], "translation": [{"de": de, "en": en} for de, en in PAIRS]})
    if kind == "large":
        return pa.table({"en": pa.array(english).dictionary_encode(), "de": pa.array(german, pa.large_string())})
    return pa.table({"de": german, "en": english})


def parquet(kind: str = "", **settings: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(arrow_table(kind), stream, **settings)
    return stream.getvalue()


def arrow(kind: str = "", is_stream: bool = True) -> bytes:
    content = arrow_table(kind)
    stream = io.BytesIO()
    with (pa.ipc.new_stream if is_stream else pa.ipc.new_file)(stream, content.schema) as writer:
        writer.write_table(content, max_chunksize=70)
    return stream.getvalue()


def lines(side: int) -> bytes:
    return "".join(pair[side] + "\n" for pair in PAIRS).encode()


def saved(directory: Path) -> None:
    """What ``Dataset.save_to_disk`` of ``datasets`` writes."""
    names = [f"data-{i:05d}-of-00012.arrow" for i in range(12)]
    (directory / "dataset_info.json").write_text("{}")
    (directory / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (directory / "cache-1.arrow").write_bytes(arrow())
    content = arrow_table("nested")
    for i, name in enumerate(names):
        with pa.ipc.new_stream(directory / name, content.schema) as writer:
            writer.write_table(content.slice(26 * i, 26 if i < 11 else None))


FORMS: dict[str, tuple[str, dict[str, str], dict[str, Callable[[], bytes]]]] = {
    "Moses": ("x.{lang}", {}, {"x.de": lambda: lines(0), "x.en": lambda: lzma.compress(lines(1))}),
    "JSON lines": ("x.jsonl", {}, {"x.jsonl": json_lines}),
    "nested JSON lines": ("x.json.zst", NESTED, {"x.json.zst": lambda: zstandard.compress(json_lines(True, False))}),
    "TSV without header": (
        *("x.tsv.gz", {"de": "1", "en": "2"}),
        {"x.tsv.gz": lambda: gzip.compress("".join(f"{de}\t{en}\n" for de, en in PAIRS).encode())},
    ),
    "TSV": ("x.tsv", {}, {"x.tsv": lambda: table("\t")}),
    "TSV in quotes": ("x.tsv", {}, {"x.tsv": lambda: table("\t", csv.QUOTE_ALL)}),
    "CSV": ("x.csv.bz2", {}, {"x.csv.bz2": lambda: bz2.compress(table(","))}),
    "CSV without header": ("x.csv", {"de": "2", "en": "1"}, {"x.csv": lambda: table(",", header=False)}),
    "TMX": ("x.tmx", {}, {"x.tmx": tmx}),
    "TMX in UTF-16": ("x.tmx.xz", {}, {"x.tmx.xz": lambda: lzma.compress(tmx("UTF-16"))}),
    "Parquet": ("[x-z].parquet", NESTED, {"x.parquet": lambda: parquet("nested", row_group_size=50)}),
    "large Parquet": ("blob", {}, {"blob": lambda: parquet("large")}),
    "Arrow": ("x.arrow", {}, {"x.arrow": lambda: arrow(is_stream=False)}),
    "Arrow stream": ("x.arrow", NESTED, {"x.arrow": lambda: arrow("nested")}),
    "saved data set": (".", NESTED, {}),
}


def write(directory: Path, form: str) -> tuple[str, dict[str, str]]:
    """Write the text in a form, return the pattern and the columns."""
    directory.mkdir()
    pattern, columns, files = FORMS[form]
    for name, content in files.items():
        (directory / name).write_bytes(content())
    if not files:
        saved(directory)
    return str(directory / pattern), columns


def test_the_same_text_in_any_form_makes_the_same_bytes(tmp_path: Path) -> None:
    digests = {}
    for form in FORMS:
        pattern, columns = write(tmp_path / form, form)
        train, output = SplitConfig(pairs={"de-en": [pattern]}), tmp_path / form / "out"
        settings: dict[str, Any] = {"columns": columns, "bpe": BpeConfig(merges=40), "workers": 1}
        assert prepare(PrepareConfig(str(output), train, **settings)).totals()[0].sentences == len(PAIRS) - 1
        files = sorted(path for path in output.iterdir() if path.suffix != ".json")
        digests[form] = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    assert set(digests.values()) == {digests["Moses"]}


@pytest.mark.parametrize("form", FORMS)
def test_a_side_of_pairs_is_text_of_one_language(tmp_path: Path, form: str) -> None:
    pattern, columns = write(tmp_path / "x", form)
    columns = {name: column for name, column in columns.items() if name == "en"}
    texts = find_texts(PrepareConfig("out", SplitConfig({"en": [pattern.replace("{lang}", "en")]}), columns=columns))
    found = [line.decode() for text in texts for chunk in read_chunks(text, 1000) for line in chunk.lines[0]]
    assert found == [en for _, en in PAIRS]


def read(directory: Path, name: str, content: bytes, pair: bool = True, **columns: str) -> list[tuple[str, ...]]:
    """Return the texts of a table of a pair or of German."""
    (directory / name).write_bytes(content)
    path = str(directory / name)
    train = SplitConfig(pairs={"de-en": [path]}) if pair else SplitConfig({"de": [path]})
    (text,) = find_texts(PrepareConfig("out", train, columns=columns))
    return [
        tuple(line.decode() for line in aligned) for chunk in read_chunks(text, 1000) for aligned in zip(*chunk.lines)
    ]


def test_a_line_of_a_document_is_a_sentence_and_a_text_of_a_pair_is_one(tmp_path: Path) -> None:
    document = b'{"text": "Eins.\\r\\nZwei.\\n\\nDrei.\\n"}\n\n{"text": "Vier."}\n'
    found = read(tmp_path, "x.jsonl", document, pair=False)
    assert found == [("Eins.",), ("Zwei.",), ("",), ("Drei.",), ("",), ("Vier.",)]
    rows = b'de,en\r\n"Eins\r\nZwei",One\r\n\r\nDrei,""\r\n'
    assert read(tmp_path, "x.csv", rows) == [("Eins Zwei", "One"), ("", ""), ("Drei", "")]
    memory = b"<tmx><tu><tuv xml:lang='de'><seg>a\nb</seg></tuv></tu></tmx>"
    assert read(tmp_path, "x.tmx", memory, pair=False) == [("a b",)]


def test_a_pair_of_tables_is_aligned_by_record(tmp_path: Path) -> None:
    (tmp_path / "x.de.csv").write_bytes(b'text\n"a\nb"\nc\n')
    (tmp_path / "x.en.csv").write_bytes(b"text\nA\nC\n\xff\n")
    (text,) = find_texts(PrepareConfig("out", SplitConfig(pairs={"de-en": [f"{tmp_path}/x.{{lang}}.csv"]})))
    chunks = read_chunks(text, 1000)
    chunk = next(chunks)
    assert (chunk.lines, chunk.numbers) == (([b"a b", b"c"], [b"A", b"C"]), ([2, 4], [2, 3]))
    with pytest.raises(DataError, match=r"x\.de\.csv has 2 lines, .*x\.en\.csv has 3; .*x\.en\.csv:4 is the first"):
        next(chunks)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"de": "a", "en": "b"}\n{"de": "a", "en": null}\n', r":2: column en is null \(columns: de, en\)"),
        ("x.jsonl", b'{"de": "a", "en": 3}\n', r":1: column en is int, not text"),
        (
            "x.jsonl",
            b'{"id": 1, "t": {"de": "a", "fr": "b"}}\n',
            r":1: no column de; there are: id, t\.de, t\.fr; columns\.de=",
        ),
        ("x.jsonl", b'{"de": "a", "en": "b"}\n{"de": "a"', r":2: not JSON .*; every line must be one object"),
        ("x.json", b'[\n{"de": "a"}\n]', ":1: not JSON"),
        ("x.json", b'["a", "b"]', r":1: not JSON \(an array or a value alone\)"),
        ("x.jsonl", b"[" * 100_000, ":1: not JSON"),
        (
            "x.tsv",
            b"Guten Tag\tGood day\n",
            ":1: no column de; there are: Guten Tag, Good day; .*, or gives its number",
        ),
        ("x.tsv", b"de\ten\na\tb\na\tb\tc\n", ":3: 3 cells, not 2 as in the first row"),
        ("x.csv", b'de,en\na,b\n"a,b\nc,d\n', r":3: not a row of a table \(unexpected end of data\)"),
        ("x.csv", b'de,en\n"a"b,c\n', ":2: not a row of a table"),
        ("x.csv", b"de,en,de\na,b,c\n", ":1: several columns de; there are: de, en, de"),
        ("x.csv", b"de,en\na,b\nde,en\n", ":3: a header among the lines, as of files that were joined"),
        ("x.jsonl", b'{"de": "a", "en": "b", "de": "c"}\n', r":1: not JSON \(a name is there twice\)"),
        ("x.tmx", tmx()[:-300], r"x\.tmx:\d+: not well-formed"),
        ("x.tmx", tmx().replace(b'"de"', b'"fr"'), r"x\.tmx: no column de; there are: en-us, fr; columns\.de=\.\.\."),
        ("x.tmx", LAUGHS, r"x\.tmx:2: declares an entity; refused"),
        ("x.tmx", OUTSIDE, r"x\.tmx:2: declares an entity; refused"),
        ("x.tmx", b"", "no element found"),
        ("x.parquet", parquet()[:-20], r"x\.parquet: cannot be read to its end .*truncated"),
        ("x.parquet", parquet()[:900] + b"\xff" * 99 + parquet()[999:], r"x\.parquet: cannot be read to its end"),
        ("x.parquet", b"", r"x\.parquet: cannot be read to its end"),
        ("x.parquet", parquet("nested"), "no column de; there are: id, translation.de, translation.en;"),
        ("x.arrow", arrow()[:-8], r"x\.arrow: cannot be read to its end .*truncated"),
        ("x.arrow", arrow()[:-200], r"x\.arrow: cannot be read to its end"),
        ("x.arrow", arrow(is_stream=False)[:-200], r"x\.arrow: cannot be read to its end"),
        ("x.tsv.gz", gzip.compress(table("\t"))[:-9], r"x\.tsv\.gz: cannot be read to its end"),
        ("x.tmx.gz", gzip.compress(tmx())[:-9], r"x\.tmx\.gz: cannot be read to its end"),
        ("x.csv", "de,en\n".encode("utf-16"), "is UTF-16"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, name, content)


def test_a_column_with_a_number_may_have_a_heading(tmp_path: Path) -> None:
    for head in (b"DE\tEN", b"source\ttarget", b"de\ten"):
        assert read(tmp_path, "x.tsv", head + b"\na\tb\n", de="1", en="2") == [("a", "b")]
    assert read(tmp_path, "x.tsv", b"de\tbody\na\tb\n", pair=False, text="2") == [("b",)]
    assert read(tmp_path, "x.csv", b"x,c\n1,b\n", pair=False, text="2") == [("c",), ("b",)]


def test_all_records_are_read_from_one_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r":2: no column text or de; there are: de, en"):
        read(tmp_path, "x.jsonl", b'{"text": "a", "de": "x"}\n{"de": "b", "en": "c"}\n', pair=False)
    with pytest.raises(DataError, match=r":1: no column body; there are: de, en"):
        read(tmp_path, "x.jsonl", b'{"de": "b", "en": "c"}\n', pair=False, text="body")


def test_a_column_is_text_of_one_language(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"de,en\na,b\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "x.csv")
    path, link = f"{tmp_path}/x.csv", f"{tmp_path}/link.csv"
    mono, pair = SplitConfig({"de": [path], "en": [link]}), SplitConfig(pairs={"de-en": [path]})
    for train in (mono, pair, SplitConfig({"de": [path]}, {"de-en": [link]})):
        assert without_repeats(find_texts(PrepareConfig("out", train)))[1] == []
    for train, columns in ((mono, {"text": "de"}), (mono, {"text": "1"}), (pair, {"de": "en"})):
        with pytest.raises(DataError, match=r"the same column of .*\.csv is given for en, and as .*/x\.csv for de"):
            without_repeats(find_texts(PrepareConfig("out", train, columns=columns)))


def test_columns_that_nothing_has_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\n")
    (tmp_path / "x.csv").write_bytes(b"de,en\na,b\n")
    for train, name in (
        (SplitConfig({"de": [f"{tmp_path}/x"]}), "de"),
        (SplitConfig({}, {"de-en": [f"{tmp_path}/x.csv"]}), "text"),
    ):
        with pytest.raises(DataError, match=f"columns.{name}: there is no table with such a column; leave it out"):
            find_texts(PrepareConfig("out", train, columns={name: "1"}))


def test_nulls_of_tables_have_their_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"de": ["a"] * 250, "en": ["b"] * 249 + [None]}), tmp_path / "x")
    with pytest.raises(DataError, match=r"x:250: column en is null \(columns: de, en\)"):
        read(tmp_path, "x", (tmp_path / "x").read_bytes())
    pq.write_table(pa.table({"translation": [{"de": "a", "en": "b"}, None]}), tmp_path / "x")
    with pytest.raises(DataError, match=r"x:2: column translation\.de is null"):
        read(tmp_path, "x", (tmp_path / "x").read_bytes(), **NESTED)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", b'{"text": "gut"}\n{"text": "gr\xfc\xdfe"}\n{"text": "\\ud83d"}\n'),
        ("x.csv", b"text\ngut\ngr\xfc\xdfe\n\xff\n"),
        ("x.tsv", b"text\ngut\ngr\xfc\xdfe\n\xff\n"),
    ],
)
def test_what_is_not_utf8_is_named_or_dropped_as_in_lines(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    settings: dict[str, Any] = {"train": SplitConfig({"de": [str(tmp_path / name)]}), "bpe": BpeConfig(merges=1)}
    number = 2 if name == "x.jsonl" else 3
    with pytest.raises(DataError, match=rf"{name}:{number}: not UTF-8"):
        prepare(PrepareConfig(str(tmp_path / "out"), workers=1, **settings))
    drop = CleanConfig(invalid_utf8=OnError.drop)
    (file,) = prepare(PrepareConfig(str(tmp_path / "out"), workers=1, clean=drop, **settings)).files
    assert (file.lines, file.sentences, file.dropped["invalid_utf8"]) == (3, 1, 2)


def test_rows_that_do_not_end_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "MAX_LINE_BYTES", 10_000)
    with pytest.raises(DataError, match=r"x\.csv:2: a row of more than 10,000 bytes; is a quote not closed"):
        read(tmp_path, "x.csv", b'de,en\n"' + b"a\n" * 6000)


def test_without_pyarrow_one_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_files, "pa", None)
    for content in (parquet(), arrow()):
        with pytest.raises(ConfigError, match=r"x: Parquet and Arrow need pyarrow: pip install 'xlmtrain\[tables\]'"):
            read(tmp_path, "x", content)


def test_other_columns_are_another_task(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"de,en,fr\na,b,c\n")
    train = SplitConfig(pairs={"de-en": [f"{tmp_path}/x.csv"]})
    configs = [PrepareConfig("out", train, columns=columns) for columns in ({}, {"en": "fr"})]
    assert len({shard_task(text, config).key for config in configs for text in find_texts(config)}) == 2


def test_a_saved_data_set_must_be_whole(tmp_path: Path) -> None:
    saved(tmp_path)
    texts = find_texts(PrepareConfig("out", SplitConfig({"de": [str(tmp_path)]})))
    assert [text.paths[0].name[:10] for text in texts] == [f"data-{i:05d}" for i in range(12)]
    (tmp_path / "data-00007-of-00012.arrow").unlink()
    with pytest.raises(DataError, match=r"data-00007-of-00012\.arrow, which state\.json lists, is not there"):
        find_texts(PrepareConfig("out", SplitConfig({"de": [str(tmp_path)]})))
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "../x"}]}')
    with pytest.raises(DataError, match=r"state\.json: not written by datasets \(\.\./x is not a file in"):
        find_texts(PrepareConfig("out", SplitConfig({"de": [str(tmp_path)]})))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(DataError, match=r"holds the splits of a data set; give one of them, like .*/train"):
        find_texts(PrepareConfig("out", SplitConfig({"de": [str(tmp_path)]})))
