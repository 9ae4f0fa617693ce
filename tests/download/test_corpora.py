"""Many corpora at once, from a local server to the text that preparation reads."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import shlex
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.support.publisher import Hurried, Publisher, publishing
from tests.support.samples import ENGLISH, GERMAN, TMX, sgm, tar, text, zipped
from xlmtrain.config.load import compose
from xlmtrain.download import transfers
from xlmtrain.download.catalogue import Corpus, Remote
from xlmtrain.download.corpora import download, prepare_command
from xlmtrain.download.ledger import only_one
from xlmtrain.errors import DataError
from xlmtrain.prepare.raw_files import find_texts

LIMIT = 10_000_000
BOTH = ("de", "en")


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "*")
    with publishing() as server:
        yield server


def offer(publisher: Publisher, name: str, form: str, *contents: bytes, **more: object) -> Corpus:
    """A corpus of these files at the publisher's."""
    endings = {"text": ".gz", "tsv": ".tsv.gz", "tmx": ".tmx.gz", "sgm": ".tgz", "moses": ".zip", "tatoeba": ".bz2"}
    urls = [publisher.serve(f"/{name}/{n}{endings.get(form, '')}", content) for n, content in enumerate(contents)]
    values = {"languages": BOTH, "split": "train", **more}
    return Corpus(name, form, "free", tuple(Remote(url, LIMIT) for url in urls), **values)  # type: ignore[arg-type]


def everything(publisher: Publisher) -> list[Corpus]:
    """A corpus of every format but Wikipedia's, which needs an extra."""
    tsv = "".join(f"{de}\t{en}\n" for de, en in zip(GERMAN, ENGLISH)).encode() + b"\t\n"
    moses = zipped({"C.de-en.en": text(ENGLISH), "C.de-en.de": text(GERMAN)})
    sets = tar({"test/n.de.sgm": sgm(GERMAN, "src"), "test/n.en.sgm": sgm(ENGLISH, "ref")})
    sentences = [
        bz2.compress("".join(f"{n}\tx\t{sentence}\n" for n, sentence in enumerate(side)).encode())
        for side in (GERMAN, ENGLISH)
    ]
    return [
        offer(publisher, "crawl-de", "text", gzip.compress(text(GERMAN)), languages=("de",)),
        offer(publisher, "crawl-en", "text", gzip.compress(text(ENGLISH)), languages=("en",)),
        offer(publisher, "columns", "tsv", gzip.compress(tsv)),
        offer(publisher, "aligned", "moses", moses, members=("C.de-en.de", "C.de-en.en")),
        offer(publisher, "dev", "sgm", sets, split="valid", members=("test/n.de.sgm", "test/n.en.sgm")),
        offer(publisher, "memory", "tmx", gzip.compress(TMX), languages=("en", "de")),
        offer(publisher, "short", "tatoeba", *sentences, bz2.compress(b"0\t0\n1\t1\n2\t2\n")),
        offer(publisher, "codes_x", "file", b"a b 1\n", languages=(), split=None),
        offer(publisher, "vocab_x", "file", b"a 1\n", languages=(), split=None),
    ]


def texts(output: Path) -> dict[str, bytes]:
    """The finished texts."""
    return {path.name: gzip.decompress(path.read_bytes()) for path in sorted(output.glob("*.gz"))}


def test_every_format_becomes_text_that_preparation_reads(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpora, output = everything(publisher), tmp_path / "raw"
    download(corpora, output, Hurried())
    german, english = text(GERMAN), text(ENGLISH)
    pairs = ("columns", "aligned", "dev", "memory", "short")
    expected = {f"{name}.{lang}.gz": side for name in pairs for lang, side in (("de", german), ("en", english))}
    assert texts(output) == {**expected, "crawl-de.de.gz": german, "crawl-en.en.gz": english}
    assert (output / "codes_x").read_bytes() == b"a b 1\n"
    assert not list(output.glob(".*partial")) + list(output.rglob("*.part*"))
    printed = capsys.readouterr().out
    assert "columns: 3 pairs (1 without text on every side dropped)" in printed
    assert "crawl-de: 3 sentences\n" in printed

    command = shlex.split(prepare_command(corpora, output))
    assert command[:2] == ["python", "tools/prepare.py"]
    config = compose("prepare", command[2:])
    assert (config.bpe.codes, config.vocab.file) == (str(output / "codes_x"), str(output / "vocab_x"))
    found = {(t.split, t.languages, t.paths[0].name) for t in find_texts(config)}
    trained = {("train", BOTH, f"{name}.de.gz") for name in ("columns", "aligned", "memory", "short")}
    mono = {("train", ("de",), "crawl-de.de.gz"), ("train", ("en",), "crawl-en.en.gz")}
    valid = {("valid", ("de",), "dev.de.gz"), ("valid", ("en",), "dev.en.gz"), ("valid", BOTH, "dev.de.gz")}
    assert found == trained | mono | valid


def test_nothing_is_downloaded_or_made_twice(publisher: Publisher, tmp_path: Path) -> None:
    corpora = everything(publisher)
    download(corpora, tmp_path, Hurried())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")}
    publisher.requests.clear()
    download(corpora, tmp_path, Hurried())
    assert publisher.requests == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")} == before
    shutil.rmtree(tmp_path / "downloads")  # the archives are not needed any more
    made = (tmp_path / "columns.de.gz").read_bytes()
    (tmp_path / "columns.de.gz").write_bytes(made[:20])
    download(corpora, tmp_path, Hurried())
    assert (tmp_path / "columns.de.gz").read_bytes() == made
    assert {path for _, path, _ in publisher.requests} == {"/columns/0.tsv.gz"}


def test_the_same_text_gives_the_same_bytes(publisher: Publisher, tmp_path: Path) -> None:
    corpora = everything(publisher)
    for name in ("one", "two"):
        download(corpora, tmp_path / name, Hurried())
    for name in texts(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert name.startswith("crawl") or (tmp_path / "one" / name).read_bytes()[4:8] == bytes(4)  # gzip's clock


def test_one_failure_does_not_stop_the_others(publisher: Publisher, tmp_path: Path) -> None:
    corpora = everything(publisher)
    gone = publisher.files.pop("/short/1.bz2")
    with pytest.raises(DataError, match=r"/short/1\.bz2: the server says 404") as failure:
        download(corpora, tmp_path, Hurried())
    assert str(failure.value).count("http://") == 1
    assert len(texts(tmp_path)) == 10
    publisher.requests.clear()
    publisher.files["/short/1.bz2"] = gone
    download(corpora, tmp_path, Hurried())
    assert [request[:2] for request in publisher.requests] == [("HEAD", "/short/1.bz2"), ("GET", "/short/1.bz2")]
    assert len(texts(tmp_path)) == 12


BAD_FILES = {
    "page": ("text", b"<html>Please log in</html>", "is it damaged"),
    "cut": ("text", gzip.compress(text(GERMAN))[:-5], "is it damaged"),
    "empty": ("text", gzip.compress(b""), "no sentence found in it"),
    "columns": ("tsv", gzip.compress(b"one column\n"), "no sentence found in it"),
    "unaligned": ("moses", zipped({"a.de": text(GERMAN), "a.en": text(ENGLISH[:2])}), "ends before its line 3"),
    "hostile": ("moses", zipped({"../a.de": b"x"}), "holds a member called"),
}


@pytest.mark.parametrize(("form", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_no_good_is_removed(
    publisher: Publisher, tmp_path: Path, form: str, content: bytes, message: str
) -> None:
    more = {"languages": ("de",)} if form == "text" else {"members": ("a.de", "a.en")} if form == "moses" else {}
    corpus = offer(publisher, "bad", form, content, **more)
    with pytest.raises(DataError, match=f"^bad: .*{message}.*; removed [^/]*bad[^/]*$"):
        download([corpus], tmp_path, Hurried())
    assert {path.name for path in tmp_path.rglob("*")} == {"downloads", "downloads.json", ".lock"}
    assert json.loads((tmp_path / "downloads.json").read_text()) == {"files": {}, "texts": {}}


def test_what_is_as_published_is_kept(publisher: Publisher, tmp_path: Path) -> None:
    """Its checksum is right, so that another download would not mend it."""
    content = zipped({"a.de": text(GERMAN)})
    url = offer(publisher, "odd", "moses", content).files[0].url
    remote = Remote(url, LIMIT, checksum="sha256:" + hashlib.sha256(content).hexdigest())
    with pytest.raises(DataError, match=r"^odd: .*holds no a\.en, only a\.de$"):
        download([Corpus("odd", "moses", "free", (remote,), BOTH, "train", ("a.de", "a.en"))], tmp_path, Hurried())
    assert len(list((tmp_path / "downloads").iterdir())) == 1


def test_corpora_that_share_an_archive(publisher: Publisher, tmp_path: Path) -> None:
    archive = tar({"d.de": sgm(GERMAN, "src"), "d.en": sgm(ENGLISH, "ref")})
    one = offer(publisher, "one", "sgm", archive, members=("d.de", "d.en"))
    missing = Corpus("missing", "sgm", "free", one.files, BOTH, "test", ("d.de", "d.fr"))
    other = Corpus("other", "sgm", "free", one.files, BOTH[::-1], "test", ("d.en", "d.de"))
    with pytest.raises(DataError, match=r"^missing: .*holds no d\.fr, only d\.de, d\.en; removed "):
        download([missing, one, other], tmp_path, Hurried())
    assert [method for method, _, _ in publisher.requests] == ["HEAD", "GET"]
    assert texts(tmp_path)["one.de.gz"] == texts(tmp_path)["other.de.gz"] == text(GERMAN)


def test_a_renewed_file_is_noticed(publisher: Publisher, tmp_path: Path) -> None:
    corpus = offer(publisher, "crawl", "text", gzip.compress(text(GERMAN)), languages=("de",))
    download([corpus], tmp_path, Hurried())
    (tmp_path / "crawl.de.gz").unlink()
    offer(publisher, "crawl", "text", gzip.compress(text(ENGLISH)), languages=("de",))
    with pytest.raises(DataError, match=r"is not what it was the last time .* remove its entry from downloads\.json"):
        download([corpus], tmp_path, Hurried())
    assert texts(tmp_path) == {}


def test_room_is_asked_for_first(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora = everything(publisher)
    sizes = {path: len(served.content) for path, served in publisher.files.items()}
    # Archives need their size twice: once for the text that is read out of them.
    needed = sum(size * (1 if path.startswith(("/crawl", "/codes", "/vocab")) else 2) for path, size in sizes.items())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(transfers.shutil, "disk_usage", lambda _: usage(0, 0, needed - 1))
    with pytest.raises(DataError, match=r"GB are needed and 0\.00 GB are free"):
        download(corpora, tmp_path, Hurried())
    assert publisher.gets() == []
    (tmp_path / "crawl-de.de.gz.part").write_bytes(bytes(10))  # what has come already needs no room
    monkeypatch.setattr(transfers.shutil, "disk_usage", lambda _: usage(0, 0, needed - 10))
    download(corpora, tmp_path, Hurried())


def test_two_at_a_time_from_one_host(publisher: Publisher, tmp_path: Path) -> None:
    """The server answers only when two are asked for together, and has never more."""
    corpora = [
        offer(publisher, f"c{number}", "text", gzip.compress(text(GERMAN)), languages=("de",)) for number in range(8)
    ]
    barrier = threading.Barrier(2)
    for served in publisher.files.values():
        served.together = barrier
    download(corpora, tmp_path, Hurried(), parallel=6)
    assert publisher.most_open == 2
    assert len(texts(tmp_path)) == 8


def test_ctrl_c_ends_all_downloads(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = offer(publisher, "endless", "text", b"", languages=("de",))
    publisher.files["/endless/0.gz"].endless = True
    begun = threading.Event()

    class Watched(Hurried):
        def blocks(self, response: object) -> Iterator[bytes]:  # type: ignore[override]
            for block in super().blocks(response):  # type: ignore[arg-type]
                begun.set()
                yield block

    def interrupt(_: object) -> Iterator[Future[None]]:
        assert begun.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(transfers, "as_completed", interrupt)
    endless = Corpus("endless", "text", "free", (Remote(corpus.files[0].url, 1 << 50),), ("de",), "train")
    with pytest.raises(KeyboardInterrupt):
        download([endless], tmp_path, Watched())
    assert (tmp_path / "endless.de.gz.part").exists()
    assert not (tmp_path / "endless.de.gz").exists()


def test_only_one_process_at_a_time(publisher: Publisher, tmp_path: Path) -> None:
    with only_one(tmp_path):
        with pytest.raises(DataError, match="another process is downloading to it"):
            download(everything(publisher), tmp_path, Hurried())
    assert publisher.requests == []


@pytest.mark.parametrize("content", ["", "[]", '{"files": []}', '{"files": {}, "texts": {"a": null}}', "{"])
def test_a_damaged_ledger(publisher: Publisher, tmp_path: Path, content: str) -> None:
    (tmp_path / "downloads.json").write_text(content)
    with pytest.raises(DataError, match=r"downloads\.json: damaged"):
        download(everything(publisher), tmp_path, Hurried())


def test_an_output_that_cannot_be(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"output=.*/file: cannot be written \("):
        download(everything(publisher), tmp_path / "file", Hurried())


ODD = ["a b", "quote'", 'double"', "ä ß", "-dash", "semi;colon", "a,b", "{x: y}", "par(en)", "eq=ual"]


@pytest.mark.parametrize("name", ODD)
def test_odd_directory_names(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    corpora = everything(publisher)[:4] + everything(publisher)[-2:]
    monkeypatch.chdir(tmp_path)
    download(corpora, Path(name), Hurried())
    config = compose("prepare", shlex.split(prepare_command(corpora, Path(name)))[2:])
    assert len(find_texts(config)) == 4
    assert config.bpe.codes == f"{name}/codes_x"
