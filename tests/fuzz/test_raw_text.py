"""Raw text in tables: damaged files of every form, and text that comes back as it was written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt
from tests.support.mutations import compressed, damaged, damaged_json, mutated
from xlmtrain.config.prepare import PrepareConfig, SplitConfig
from xlmtrain.prepare.raw_files import find_texts, read_chunks

pa = pytest.importorskip("pyarrow", reason="what reads Parquet and Arrow is an extra")
pq = pytest.importorskip("pyarrow.parquet", reason="what reads Parquet and Arrow is an extra")

PAIRS = [("Guten Tag", "Good day"), ('"Ja", sagte\ner', 'He said "yes"'), ("", "ß\u2028")]
JSON = [{"de": de, "en": en, "more": {"id": [1, None]}} for de, en in PAIRS]
TMX = (
    b'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx><header/><body><tu>\n'
    b'<tuv xml:lang="de"><seg>Ein <ph>x</ph>Haus &amp; Hof</seg></tuv><tuv xml:lang="EN-us"><seg>A house</seg></tuv>'
    b"</tu></body></tmx>"
)
TEXT = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=("Cs",)), max_size=20)


def csv_of(pairs: list[tuple[str, str]], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([("de", "en"), *pairs])
    return stream.getvalue().encode()


def arrow_of(kind: str, compression: str | None = None) -> bytes:
    stream = io.BytesIO()
    table = pa.table(
        {"de": [de for de, _ in PAIRS * 40], "en": pa.array([en for _, en in PAIRS * 40]), "id": [1] * 120}
    )
    if kind == "dictionary":
        table = pa.table({"de": table["de"].dictionary_encode(), "en": table["en"].cast(pa.large_string())})
    if kind == "parquet":
        pq.write_table(table, stream, row_group_size=50, compression=compression or "none", write_page_checksum=False)
    else:
        options = pa.ipc.IpcWriteOptions(compression=compression)
        open_writer = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with open_writer(stream, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=50)
    return stream.getvalue()


TABLES = {
    "x.parquet": [arrow_of("parquet"), arrow_of("parquet", "snappy"), arrow_of("parquet", "zstd")],
    "x.arrow": [arrow_of("file"), arrow_of("file", "lz4"), arrow_of("stream"), arrow_of("dictionary")],
}


def read_all(path: Path) -> list[tuple[bytes, ...]]:
    """Return the texts of a table as pairs, and read it once more as German."""
    pairs, german = SplitConfig(pairs={"de-en": [str(path)]}), SplitConfig({"de": [str(path)]})
    found = [[*read_chunks(*find_texts(PrepareConfig("out", train)), 1000)] for train in (pairs, german)]
    return [aligned for chunk in found[0] for aligned in zip(*chunk.lines)]


@given(
    content=compressed(st.one_of(damaged_json(JSON[1]), damaged(b"\n".join(json.dumps(row).encode() for row in JSON))))
)
def test_json_lines(place: Path, content: bytes) -> None:
    (place / "x.jsonl").write_bytes(content)
    attempt("JSON lines", lambda: read_all(place / "x.jsonl"), len(content))


@example(content=b'de,en\n"' + b"a,\n" * 50_000, name="x.csv")
@example(content=b"\nde,en\na,b\n", name="x.csv")
@example(content=b"de\ten\n" + b'"' * 100_000 + b"\tx\n", name="x.tsv")
@given(
    content=compressed(st.one_of(damaged(csv_of(PAIRS)), damaged(csv_of(PAIRS, "\t")))),
    name=st.sampled_from(("x.tsv", "x.csv")),
)
def test_rows(place: Path, content: bytes, name: str) -> None:
    (place / name).write_bytes(content)
    attempt("TSV and CSV", lambda: read_all(place / name), len(content))


@given(content=compressed(st.one_of(damaged(TMX), mutated(TMX.decode().replace("utf-8", "utf-16").encode("utf-16")))))
def test_tmx(place: Path, content: bytes) -> None:
    (place / "x.tmx").write_bytes(content)
    attempt("TMX", lambda: read_all(place / "x.tmx"), len(content))


@pytest.mark.parametrize("name", TABLES)
@given(draw=st.data())
def test_parquet_and_arrow(place: Path, draw: st.DataObject, name: str) -> None:
    content = draw.draw(st.sampled_from(TABLES[name]).flatmap(damaged))
    (place / name).write_bytes(content)
    attempt(f"Parquet and Arrow: {name}", lambda: read_all(place / name), len(content))


@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1))
def test_written_text_is_read_again(place: Path, pairs: list[tuple[str, str]]) -> None:
    """By another writer in every form that can hold any text."""
    schema = pa.schema({"de": pa.string(), "en": pa.string()})
    table = pa.Table.from_pylist([{"de": de, "en": en} for de, en in pairs], schema)
    pq.write_table(table, place / "x.parquet")
    with pa.ipc.new_stream(place / "x.arrow", schema) as writer:
        writer.write_table(table)
    (place / "x.jsonl").write_text("".join(json.dumps({"de": de, "en": en}) + "\n" for de, en in pairs))
    (place / "x.csv").write_bytes(csv_of(pairs))
    expected = [(de.encode(), en.encode()) for de, en in pairs]
    for name in ("x.parquet", "x.arrow", "x.jsonl", "x.csv"):
        found = attempt(f"tables, written and read: {name}", lambda name=name: read_all(place / name), 1 << 20)
        assert found == expected
