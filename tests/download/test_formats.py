"""The formats of publishers, read to aligned sentences."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pytest

from tests.support.samples import (
    ARTICLE,
    ARTICLE_SENTENCES,
    ENGLISH,
    GERMAN,
    LAUGHS,
    OUTSIDE,
    TMX,
    sgm,
    tar,
    text,
    wiki,
    zipped,
)
from xlmtrain.download.catalogue import DatasetEntry, RemoteFile
from xlmtrain.download.formats import read_rows
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.text import xml_files

BOTH = list(zip(GERMAN, ENGLISH))


def read(
    directory: Path,
    form: str,
    name: str,
    content: bytes,
    languages: tuple[str, ...] = ("de", "en"),
    members: tuple[str, ...] = (),
    workers: int = 1,
) -> list[tuple[str, ...]]:
    """Return the rows of a dataset with this file."""
    path = directory / name
    path.write_bytes(content)
    entry = DatasetEntry("name", form, "none", RemoteFile("https://x", 1), languages, "train", members)
    return [tuple(" ".join(side.split()) for side in row) for row in read_rows(entry, path, workers)]


def test_tsv(tmp_path: Path) -> None:
    """Europarl has more columns, News Commentary empty lines between its articles."""
    rows = [f"{de}\t{en}\tspeaker\t1" for de, en in BOTH]
    content = "\n".join([rows[0], "\t", rows[1], "", "one column", *rows[2:]]).encode() + b"\nFalsch \xff\tWrong\n"
    found = read(tmp_path, "tsv", "x.tsv.gz", gzip.compress(content))
    assert [row for row in found if all(row)] == BOTH
    assert len(found) == 7


MEMBERS = {"README": b"...", "x/c.de-en.de": text(GERMAN), "x/c.de-en.en": text(ENGLISH), "x/c.de-fr.fr": b"Bonjour.\n"}
WANTED = ("x/c.de-en.de", "x/c.de-en.en")


@pytest.mark.parametrize("name", ["x.tgz", "x.zip"])
def test_moses(tmp_path: Path, name: str) -> None:
    pack = zipped if name.endswith("zip") else tar
    assert read(tmp_path, "moses", name, pack(MEMBERS), members=WANTED) == BOTH
    swapped = read(tmp_path, "moses", name, pack(MEMBERS), ("en", "de"), WANTED[::-1])
    assert swapped == [(en, de) for de, en in BOTH]


@pytest.mark.parametrize("name", ["x.tgz", "x.zip"])
def test_moses_that_is_not_aligned(tmp_path: Path, name: str) -> None:
    pack = zipped if name.endswith("zip") else tar
    short = pack({**MEMBERS, WANTED[1]: text(ENGLISH[:2])})
    with pytest.raises(DataError, match=r"x/c\.de-en\.en ends before its line 3, the other file does not"):
        read(tmp_path, "moses", name, short, members=WANTED)
    without = pack({member: content for member, content in MEMBERS.items() if member != WANTED[0]})
    with pytest.raises(DataError, match=r"holds no x/c\.de-en\.de, only README"):
        read(tmp_path, "moses", name, without, members=WANTED)


def test_a_hostile_member_behind_the_wanted_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds a member called '\.\./evil'; refused"):
        read(tmp_path, "moses", "x.tgz", tar({**MEMBERS, "../evil": b"x"}), members=WANTED)


def test_sgm(tmp_path: Path) -> None:
    members = ("test/n-src.de.sgm", "test/n-ref.en.sgm")
    contents = {members[0]: sgm(GERMAN, "src"), members[1]: sgm(ENGLISH, "ref")}
    assert read(tmp_path, "sgm", "x.tgz", tar(contents), members=members) == BOTH
    contents[members[1]] = contents[members[1]].replace(b'<seg id="2">', b'<seg id="3">')
    with pytest.raises(DataError, match=r"the segments of test/n-src\.de\.sgm and .* are not numbered alike"):
        read(tmp_path, "sgm", "x.tgz", tar(contents), members=members)


def test_tmx(tmp_path: Path) -> None:
    found = read(tmp_path, "tmx", "x.tmx.gz", gzip.compress(TMX))
    assert found == [*BOTH[:2], ("", "Only here."), BOTH[2]]
    assert read(tmp_path, "tmx", "x.tmx.gz", gzip.compress(TMX), ("en", "fr"))[2] == ("Only here.", "Ici.")


@pytest.mark.parametrize("content", [LAUGHS, OUTSIDE])
def test_entities_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.tmx\.gz:2: declares an entity; refused"):
        read(tmp_path, "tmx", "x.tmx.gz", gzip.compress(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TMX[:-30], r"x\.tmx\.gz:9: not well-formed \(unclosed token\)"),
        (TMX.replace(b"</seg>", b"</sag>", 1), ":4: not well-formed"),
        (b"", "no element found"),
        (b"<html>404<br></html>", "not well-formed"),
        (b"<tmx>" + b"<tu>" * 5000, "nested too deep"),
        (TMX.replace(b"</seg>", b"&nbsp;</seg>", 1), ":4: uses the entity nbsp, which it does not declare"),
        (b'<?xml version="1.0" encoding="x-none"?><tmx/>', ":1: unknown encoding: x-none; refused"),
        (b"<tmx><tu a='" + b"a" * 300_000, "more than 100,000 bytes without a complete <tu>"),
        (b"<tmx><tu><tuv><seg>" + b"a" * 300_000, "more than 100,000 bytes without a complete <tu>"),
    ],
)
def test_damaged_xml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str) -> None:
    monkeypatch.setattr(xml_files, "MAX_ELEMENT_BYTES", 100_000)
    with pytest.raises(DataError, match=message):
        read(tmp_path, "tmx", "x.tmx.gz", gzip.compress(content))


def test_wikipedia(tmp_path: Path) -> None:
    pytest.importorskip("mwparserfromhell", reason="what reads Wikipedia is an extra")
    pytest.importorskip("sentencex", reason="what reads Wikipedia is an extra")
    dump = wiki(
        ("0", "", ARTICLE),
        ("0", '<redirect title="Berlin" />', "#REDIRECT [[Berlin]]\nEin Satz."),
        ("1", "", "Eine Diskussion."),
        ("0", "", "Ein zweiter Artikel."),
    )
    found = read(tmp_path, "wiki", "w.xml.bz2", bz2.compress(dump), ("de",))
    assert found == [(sentence,) for sentence in [*ARTICLE_SENTENCES, "Ein zweiter Artikel."]]


def test_wikipedia_by_many_processes(tmp_path: Path) -> None:
    """The same sentences in the same order."""
    pytest.importorskip("mwparserfromhell", reason="what reads Wikipedia is an extra")
    pytest.importorskip("sentencex", reason="what reads Wikipedia is an extra")
    dump = bz2.compress(wiki(*(("0", "", f"Artikel {number} ist da. Er ist kurz.") for number in range(200))))
    found = read(tmp_path, "wiki", "w.xml.bz2", dump, ("de",), workers=2)
    expected = [(sentence,) for number in range(200) for sentence in (f"Artikel {number} ist da.", "Er ist kurz.")]
    assert found == expected


def test_wikipedia_without_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlmtrain.download.wiki.mwparserfromhell", None)
    with pytest.raises(ConfigError, match=r"pip install 'xlmtrain\[wiki\]'"):
        read(tmp_path, "wiki", "w.xml.bz2", bz2.compress(wiki()), ("de",))
