"""The catalogue, and the tool that shows and downloads what is in it."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.support.programs import Call
from tests.support.publisher import make_certificate, publishing
from tests.support.samples import GERMAN, text
from xlmtrain.download.catalogue import read_catalogue, select
from xlmtrain.errors import ConfigError, DataError

ENTRY = {
    "name": "crawl",
    "format": "text",
    "licence": "free",
    "languages": ["de"],
    "split": "train",
    "file": {"url": "https://host/crawl.gz", "limit": 1000},
}


def test_the_catalogue_has_what_the_released_model_was_made_of() -> None:
    catalogue = read_catalogue()
    years = range(2007, 2024)
    assert {f"news-crawl-{lang}-{year}" for lang in ("de", "en") for year in years} <= set(catalogue)
    assert {"codes_ende", "vocab_ende", "newstest2013", "newstest2016", "europarl-v7", "europarl-v10"} <= set(catalogue)
    assert {entry.format for entry in catalogue.values()} == {*("text", "file", "tsv", "moses", "sgm", "tmx", "wiki")}
    for entry in catalogue.values():
        assert entry.licence
        assert bool(entry.members) == (entry.format in ("moses", "sgm"))


def test_no_two_files_share_a_place() -> None:
    places: dict[Path, str] = {}
    for entry in read_catalogue().values():
        path, url = entry.local_path(Path("raw")), entry.file.url
        assert places.setdefault(path, url) == url
        assert re.fullmatch(r"raw/(downloads/)?[A-Za-z0-9._-]+", str(path))
        assert path.suffix == Path(url).suffix or entry.format == "file"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../up"}, "'../up' cannot be part of a file name"),
        ({"name": "-rf"}, "cannot be part of a file name"),
        ({"languages": ["d/e"]}, "'d/e' cannot be part of a file name"),
        ({"format": "pdf"}, "format pdf is none of"),
        ({"split": None}, "split None is none of"),
        ({"licence": "unheard"}, "unheard"),
        ({"members": ["a", "b"]}, "members and languages do not go together"),
        ({"colour": "red"}, "colour"),
        ({"file": {"url": "http://host/x", "limit": 9}}, "not https"),
        ({"file": {"url": "https://host/x", "limit": 9, "sums": "http://host/s"}}, "not https"),
        ({"file": {"url": "https://host/x", "limit": 9, "size": 10}}, "the size exceeds the limit"),
        ({"file": {"url": "https://host/x", "limit": 9, "checksum": "md5:x"}}, "checksum md5:x is none"),
        ({"file": {"url": "https://host/x"}}, "limit"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "catalogue.json"
    path.write_text(json.dumps({"licences": {"free": "free"}, "datasets": [{**ENTRY, **change}]}))
    with pytest.raises(DataError) as refusal:
        read_catalogue(path)
    assert str(refusal.value).startswith(f"{path}: {change.get('name', 'crawl')}: ")
    assert message in str(refusal.value)


def test_a_name_twice(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    path.write_text(json.dumps({"licences": {"free": "free"}, "datasets": [ENTRY, ENTRY]}))
    with pytest.raises(DataError, match="crawl: the name is taken"):
        read_catalogue(path)


def test_datasets_are_chosen_by_patterns() -> None:
    catalogue = read_catalogue()
    chosen = select(catalogue, ["newstest201[34]", "news-crawl-de-200*", "newstest2013"])
    assert [entry.name for entry in chosen] == [
        *("news-crawl-de-2007", "news-crawl-de-2008", "news-crawl-de-2009", "newstest2013", "newstest2014")
    ]
    with pytest.raises(ConfigError, match="europarl-v99: nothing of that name"):
        select(catalogue, ["europarl-v10", "europarl-v99"])


def test_without_names_the_tool_lists(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = call("download").splitlines()
    assert len(lines) == len(read_catalogue())
    assert any(re.fullmatch(r"europarl-v9 +de-en +train +204 MB  no known restriction .*", line) for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["europarl-v99"], "europarl-v99: nothing of that name in the catalogue"),
        (["outptu=x"], "no such settings: outptu=x; there are output, workers"),
        (["workers=-1", "europarl-v9"], "workers: -1 is negative"),
    ],
)
def test_the_tool_refuses(call: Call, arguments: list[str], message: str) -> None:
    assert message in call("download", *arguments, code=2)


def test_the_tool_downloads(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user would, over https with a certificate that this machine trusts; only the catalogue is another."""
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("no_proxy", "*")
    content = gzip.compress(text(GERMAN))
    with publishing(certificate) as publisher:
        file = {"url": publisher.serve("/crawl.gz", content), "limit": 1000, "size": len(content)}
        file["checksum"] = "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()
        path = tmp_path / "catalogue.json"
        path.write_text(json.dumps({"licences": {"free": "free as air"}, "datasets": [{**ENTRY, "file": file}]}))
        monkeypatch.setattr(read_catalogue, "__defaults__", (path,))
        printed = call("download", f"output={tmp_path}/raw", "crawl").splitlines()
        assert printed[0].endswith("free as air")
        assert printed[-1].startswith("xlmtrain prepare output=prepared/downloaded 'train.mono={de: [")
        assert (tmp_path / "raw" / "crawl.de.gz").read_bytes() == content
        publisher.files["/crawl.gz"].content = b"x" * len(content)
        (tmp_path / "raw" / "crawl.de.gz").unlink()
        assert "should have" in call("download", f"output={tmp_path}/raw", "crawl", code=3)
