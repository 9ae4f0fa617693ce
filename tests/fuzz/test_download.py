"""Downloads: archives, compressed text, translation memories, and the records of what was downloaded."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt
from tests.support.mutations import damaged, damaged_json, mutated
from xlmtrain.download.archives import check_archive, check_compressed
from xlmtrain.download.catalogue import CATALOGUE, DatasetEntry, RemoteFile, read_catalogue
from xlmtrain.download.fetch import _Part
from xlmtrain.download.formats import read_rows
from xlmtrain.download.manifest import Manifest
from xlmtrain.download.wiki import _articles, _sentences

SGM = b'<doc docid="a"><seg id="1">Guten &amp; Tag</seg>\n<seg id="2">Zwei</seg></doc>'
TMX = (
    b'<?xml version="1.0"?><tmx><body><tu><tuv xml:lang="de"><seg>Ein <ph>x</ph>Haus</seg></tuv>'
    b'<tuv xml:lang="EN-us"><seg>A house</seg></tuv></tu></body></tmx>'
)
WIKI = (
    b"<mediawiki><page><title>T</title><ns>0</ns><revision><text>'''Das''' ist [[ein|x]] Satz. {{a|b}}\n* Liste\n"
    b"Noch <ref>x</ref> einer.</text></revision></page></mediawiki>"
)
NAMES = ("text.de", "text.en")


def entry(form: str) -> DatasetEntry:
    return DatasetEntry("x", form, "CC0", RemoteFile("https://x.org/x", 1 << 30), ("de", "en"), "train", NAMES)


def tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


TAR, ZIP = tar_of(dict.fromkeys(NAMES, b"Guten Tag.\nZwei.\n")), zip_of(dict.fromkeys(NAMES, b"Guten Tag.\nZwei.\n"))
TAR_FIELDS = ((0, 100), (100, 108), (124, 136), (148, 156), (156, 157), (157, 257), (257, 265), (345, 500))
FIELD_VALUES = (
    b"../../evil",
    b"/etc/evil",
    b"\xff" * 12,
    b"\x80" + b"\xff" * 11,
    b"77777777777",
    b"-1",
    b"2",
    b"x",
    b"L",
    b"g",
    b"S",
)


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """A tar with a field of a header changed and the checksum mended, or with its bytes changed."""
    if draw(st.booleans()):
        return draw(damaged(TAR))
    content, begin = bytearray(TAR), 512 * draw(st.integers(0, 3))
    first, last = draw(st.sampled_from(TAR_FIELDS))
    value = draw(st.one_of(st.sampled_from(FIELD_VALUES), st.binary(max_size=12)))[: last - first]
    content[begin + first : begin + last] = value.ljust(last - first, b"\x00")
    header = content[begin : begin + 512]
    content[begin + 148 : begin + 156] = b"%06o\x00 " % (sum(header[:148]) + 256 + sum(header[156:]))
    return bytes(content)


@given(content=tars(), suffix=st.sampled_from((".tar", ".tgz")), cut=st.booleans(), draw=st.data())
def test_tar(place: Path, content: bytes, suffix: str, cut: bool, draw: st.DataObject) -> None:
    path = place / f"archive{suffix}"
    packed = gzip.compress(content) if suffix == ".tgz" else content
    path.write_bytes(draw.draw(mutated(packed)) if cut else packed)
    attempt("tar", lambda: check_archive(path), len(content))
    attempt("tar, as aligned files", lambda: [*read_rows(entry("moses"), path, 1)], len(content))


@given(content=damaged(ZIP))
def test_zip(place: Path, content: bytes) -> None:
    path = place / "archive.zip"
    path.write_bytes(content)
    attempt("zip", lambda: check_archive(path), len(content))
    attempt("zip, as aligned files", lambda: [*read_rows(entry("moses"), path, 1)], len(content))


@given(first=damaged(SGM), second=st.one_of(st.just(SGM), damaged(SGM)))
def test_sgm(place: Path, first: bytes, second: bytes) -> None:
    path = place / "sgm.zip"
    path.write_bytes(zip_of(dict(zip(NAMES, (first, second)))))
    rows = attempt("sgm", lambda: [*read_rows(entry("sgm"), path, 1)], len(first) + len(second))
    assert all(len(row) == 2 for row in rows or ())


@given(content=damaged(TMX), packed=st.booleans())
def test_tmx(place: Path, content: bytes, packed: bool) -> None:
    path = place / ("x.tmx.gz" if packed else "x.tmx")
    path.write_bytes(gzip.compress(content) if packed else content)
    rows = attempt("tmx", lambda: [*read_rows(entry("tmx"), path, 1)], len(content))
    assert all(len(row) == 2 for row in rows or ())


@given(
    content=damaged(b"Guten Tag\tGood day\t0.9\nZwei\tTwo\n"), suffix=st.sampled_from((".gz", ".xz", ".bz2", ".tsv"))
)
def test_columns(place: Path, content: bytes, suffix: str) -> None:
    path = place / f"x{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".gz" else content)
    attempt("compressed text", lambda: check_compressed(path), len(content))
    rows = attempt("tsv", lambda: [*read_rows(entry("tsv"), path, 1)], len(content))
    assert all(len(row) == 2 for row in rows or ())


@given(content=damaged(WIKI))
def test_wikipedia(content: bytes) -> None:
    path = Path("dump.xml")
    articles = attempt("Wikipedia's XML", lambda: [*_articles(io.BytesIO(content), path)], len(content))
    attempt("Wikipedia's markup", lambda: _sentences("de", articles or []), len(content))


DOWNLOADS = {
    "files": {"https://x.org/x": {"size": 3, "sha256": "0" * 64}},
    "texts": {"x.de.gz": 3},
}


@given(content=damaged_json(DOWNLOADS), part=damaged_json({"url": "u", "validator": '"e"'}))
def test_records(place: Path, content: bytes, part: bytes) -> None:
    (place / "downloads.json").write_bytes(content)
    (place / "x.de.gz").write_bytes(b"abc")
    manifest = attempt("downloads.json", lambda: Manifest(place), len(content))
    if manifest is not None:
        attempt("downloads.json", lambda: manifest.has_text(place / "x.de.gz"), len(content))
        attempt("downloads.json, written again", lambda: manifest.add_text(place / "x.de.gz"), len(content), place)
    (place / "file.part").write_bytes(b"abc")
    (place / "file.part.json").write_bytes(part)
    attempt("note of a partial download", lambda: _Part(place / "file", "u").resume_point(True), len(part))


SHORT = json.loads(CATALOGUE.read_text(encoding="utf-8"))
SHORT["datasets"] = SHORT["datasets"][:2]


@given(content=damaged_json(SHORT))
def test_catalogue(place: Path, content: bytes) -> None:
    path = place / "catalogue.json"
    path.write_bytes(content)
    attempt("catalogue.json", lambda: read_catalogue(path), len(content))
