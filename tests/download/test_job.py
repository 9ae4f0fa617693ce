"""Many datasets at once, from a local server to the text that preparation reads."""

from __future__ import annotations

import gzip
import hashlib
import json
import shlex
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.publisher import Hurried, Publisher, publishing
from tests.support.samples import ENGLISH, GERMAN, TMX, sgm, tar, text, zipped
from xlmtrain.config.load import compose
from xlmtrain.download import fetch
from xlmtrain.download.catalogue import DatasetEntry, RemoteFile
from xlmtrain.download.job import download, prepare_command
from xlmtrain.download.manifest import Manifest, exclusive_lock
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare.raw_files import find_texts

LIMIT = 10_000_000
BOTH = ("de", "en")


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "*")
    with publishing() as server:
        yield server


def offer(publisher: Publisher, name: str, form: str, content: bytes, **more: object) -> DatasetEntry:
    """Return a dataset whose file the publisher serves."""
    endings = {"text": ".gz", "tsv": ".tsv.gz", "tmx": ".tmx.gz", "sgm": ".tgz", "moses": ".zip"}
    url = publisher.serve(f"/{name}/0{endings.get(form, '')}", content)
    values = {"languages": BOTH, "split": "train", **more}
    return DatasetEntry(name, form, "free", RemoteFile(url, LIMIT), **values)  # type: ignore[arg-type]


def everything(publisher: Publisher) -> list[DatasetEntry]:
    """A dataset of every format but Wikipedia's, which needs an extra."""
    tsv = "".join(f"{de}\t{en}\n" for de, en in zip(GERMAN, ENGLISH)).encode() + b"\t\n"
    moses = zipped({"C.de-en.en": text(ENGLISH), "C.de-en.de": text(GERMAN)})
    sets = tar({"test/n.de.sgm": sgm(GERMAN, "src"), "test/n.en.sgm": sgm(ENGLISH, "ref")})
    return [
        offer(publisher, "crawl-de", "text", gzip.compress(text(GERMAN)), languages=("de",)),
        offer(publisher, "crawl-en", "text", gzip.compress(text(ENGLISH)), languages=("en",)),
        offer(publisher, "columns", "tsv", gzip.compress(tsv)),
        offer(publisher, "aligned", "moses", moses, members=("C.de-en.de", "C.de-en.en")),
        offer(publisher, "dev", "sgm", sets, split="valid", members=("test/n.de.sgm", "test/n.en.sgm")),
        offer(publisher, "memory", "tmx", gzip.compress(TMX), languages=("en", "de")),
        offer(publisher, "short", "moses", moses, members=("C.de-en.de", "C.de-en.en")),
        offer(publisher, "codes_x", "file", b"a b 1\n", languages=(), split=None),
        offer(publisher, "vocab_x", "file", b"a 1\n", languages=(), split=None),
    ]


def texts(output: Path) -> dict[str, bytes]:
    """The finished texts."""
    return {path.name: gzip.decompress(path.read_bytes()) for path in sorted(output.glob("*.gz"))}


def test_every_format_becomes_text_that_preparation_reads(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries, output = everything(publisher), tmp_path / "raw"
    download(entries, output, Hurried())
    german, english = text(GERMAN), text(ENGLISH)
    pairs = ("columns", "aligned", "dev", "memory", "short")
    expected = {f"{name}.{lang}.gz": side for name in pairs for lang, side in (("de", german), ("en", english))}
    assert texts(output) == {**expected, "crawl-de.de.gz": german, "crawl-en.en.gz": english}
    assert (output / "codes_x").read_bytes() == b"a b 1\n"
    assert not list(output.glob(".*partial")) + list(output.rglob("*.part*"))
    printed = capsys.readouterr().out
    assert "columns: 3 pairs (1 without text on every side dropped)" in printed
    assert "crawl-de: 3 sentences\n" in printed

    command = shlex.split(prepare_command(entries, output))
    assert command[:2] == ["xlmtrain", "prepare"]
    config = compose("prepare", command[2:])
    assert (config.bpe.codes, config.vocab.file) == (str(output / "codes_x"), str(output / "vocab_x"))
    found = {(t.split, t.languages, t.paths[0].name) for t in find_texts(config)}
    trained = {("train", BOTH, f"{name}.de.gz") for name in ("columns", "aligned", "memory", "short")}
    mono = {("train", ("de",), "crawl-de.de.gz"), ("train", ("en",), "crawl-en.en.gz")}
    valid = {("valid", ("de",), "dev.de.gz"), ("valid", ("en",), "dev.en.gz"), ("valid", BOTH, "dev.de.gz")}
    assert found == trained | mono | valid


def test_nothing_is_downloaded_or_made_twice(publisher: Publisher, tmp_path: Path) -> None:
    entries = everything(publisher)
    download(entries, tmp_path, Hurried())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")}
    publisher.requests.clear()
    download(entries, tmp_path, Hurried())
    assert publisher.requests == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")} == before
    shutil.rmtree(tmp_path / "downloads")  # the archives are not needed any more
    made = (tmp_path / "columns.de.gz").read_bytes()
    (tmp_path / "columns.de.gz").write_bytes(made[:20])
    download(entries, tmp_path, Hurried())
    assert (tmp_path / "columns.de.gz").read_bytes() == made
    assert publisher.requests == [("/columns/0.tsv.gz", None)]


def test_the_same_text_gives_the_same_bytes(publisher: Publisher, tmp_path: Path) -> None:
    entries = everything(publisher)
    for name in ("one", "two"):
        download(entries, tmp_path / name, Hurried())
    for name in texts(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert name.startswith("crawl") or (tmp_path / "one" / name).read_bytes()[4:8] == bytes(4)  # gzip's clock


def test_one_failure_does_not_stop_the_others(publisher: Publisher, tmp_path: Path) -> None:
    entries = everything(publisher)
    gone = publisher.files.pop("/short/0.zip")
    with pytest.raises(DataError, match=r"/short/0\.zip: the server says 404") as failure:
        download(entries, tmp_path, Hurried())
    assert str(failure.value).count("http://") == 1
    assert len(texts(tmp_path)) == 10
    publisher.requests.clear()
    publisher.files["/short/0.zip"] = gone
    download(entries, tmp_path, Hurried())
    assert publisher.requests == [("/short/0.zip", None)]
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
    entry = offer(publisher, "bad", form, content, **more)
    with pytest.raises(DataError, match=f"^bad: .*{message}.*; removed [^/]*bad[^/]*$"):
        download([entry], tmp_path, Hurried())
    assert {path.name for path in tmp_path.rglob("*")} == {"downloads", "downloads.json", ".lock"}
    assert json.loads((tmp_path / "downloads.json").read_text()) == {"files": {}, "texts": {}}


def test_what_is_as_published_is_kept(publisher: Publisher, tmp_path: Path) -> None:
    """Its checksum is right, so that another download would not fix it."""
    content = zipped({"a.de": text(GERMAN)})
    url = offer(publisher, "odd", "moses", content).file.url
    remote = RemoteFile(url, LIMIT, checksum="sha256:" + hashlib.sha256(content).hexdigest())
    with pytest.raises(DataError, match=r"^odd: .*holds no a\.en, only a\.de$"):
        download([DatasetEntry("odd", "moses", "free", remote, BOTH, "train", ("a.de", "a.en"))], tmp_path, Hurried())
    assert len(list((tmp_path / "downloads").iterdir())) == 1


def test_corpora_that_share_an_archive(publisher: Publisher, tmp_path: Path) -> None:
    archive = tar({"d.de": sgm(GERMAN, "src"), "d.en": sgm(ENGLISH, "ref")})
    one = offer(publisher, "one", "sgm", archive, members=("d.de", "d.en"))
    missing = DatasetEntry("missing", "sgm", "free", one.file, BOTH, "test", ("d.de", "d.fr"))
    other = DatasetEntry("other", "sgm", "free", one.file, BOTH[::-1], "test", ("d.en", "d.de"))
    with pytest.raises(DataError, match=r"^missing: .*holds no d\.fr, only d\.de, d\.en; removed "):
        download([missing, one, other], tmp_path, Hurried())
    assert len(publisher.requests) == 1
    assert texts(tmp_path)["one.de.gz"] == texts(tmp_path)["other.de.gz"] == text(GERMAN)


def test_a_renewed_file_is_noticed(publisher: Publisher, tmp_path: Path) -> None:
    entry = offer(publisher, "crawl", "text", gzip.compress(text(GERMAN)), languages=("de",))
    download([entry], tmp_path, Hurried())
    (tmp_path / "crawl.de.gz").unlink()
    offer(publisher, "crawl", "text", gzip.compress(text(ENGLISH)), languages=("de",))
    with pytest.raises(DataError, match=r"is not what it was the last time .* remove its entry from downloads\.json"):
        download([entry], tmp_path, Hurried())
    assert texts(tmp_path) == {}


def test_space_is_checked_first(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was downloaded already needs no space."""
    content = gzip.compress(text(GERMAN))
    entry = offer(publisher, "crawl", "text", content, languages=("de",))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage(0, 0, len(content) - 1))
    with pytest.raises(DataError, match=r"GB are needed and 0\.00 GB are free"):
        download([entry], tmp_path, Hurried())
    (tmp_path / "crawl.de.gz.part").write_bytes(content[:10])
    (tmp_path / "crawl.de.gz.part.json").write_text(json.dumps({"url": entry.file.url, "validator": '"first"'}))
    download([entry], tmp_path, Hurried())
    assert publisher.gets() == [None, "bytes=10-"]


@pytest.mark.parametrize("place", ["crawl.de.gz", "pairs.en.gz", "downloads/{archive}"])
def test_a_file_that_was_not_downloaded_is_kept(publisher: Publisher, tmp_path: Path, place: str) -> None:
    """Nothing is downloaded, and the file is neither replaced nor removed."""
    entries = [
        offer(publisher, "crawl", "text", gzip.compress(text(GERMAN)), languages=("de",)),
        offer(publisher, "pairs", "tsv", gzip.compress(b"Ja.\tYes.\n")),
    ]
    thesis = tmp_path / place.format(archive=entries[1].local_path(tmp_path).name)
    thesis.parent.mkdir(exist_ok=True)
    thesis.write_text("thesis")
    for _ in range(2):
        with pytest.raises(DataError, match=f"{thesis}: exists already and was not downloaded; move it away"):
            download(entries, tmp_path, Hurried())
        assert thesis.read_text() == "thesis"
    assert publisher.requests == []
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {thesis.relative_to(tmp_path).as_posix()} | ({"downloads"} if "/" in place else set())
    thesis.unlink()
    download(entries, tmp_path, Hurried())
    assert set(texts(tmp_path)) == {"crawl.de.gz", "pairs.de.gz", "pairs.en.gz"}


def test_a_refusal_leaves_nothing_behind(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that reads Wikipedia is missing."""
    entry = offer(publisher, "dump", "wiki", b"", languages=("de",))
    monkeypatch.setattr("xlmtrain.download.wiki.mwparserfromhell", None)
    with pytest.raises(ConfigError, match="Wikipedia needs mwparserfromhell"):
        download([entry], tmp_path / "new" / "raw", Hurried())
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "crawl.de.gz").write_text("thesis")
    with pytest.raises(DataError, match="exists already"):
        download([offer(publisher, "crawl", "text", b"", languages=("de",))], tmp_path / "new", Hurried())
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "crawl.de.gz"]


def test_a_claim_survives_a_killed_process(tmp_path: Path) -> None:
    """Killed after the text got its name and before it was recorded: the next start may replace it."""
    Manifest(tmp_path).claim([tmp_path / "crawl.de.gz"])
    (tmp_path / "crawl.de.gz").write_text("half")
    again = Manifest(tmp_path)
    assert not again.has_text(tmp_path / "crawl.de.gz")
    again.claim([tmp_path / "crawl.de.gz"])
    again.release(tmp_path / "crawl.de.gz")  # keeps the claim of a file that is there
    Manifest(tmp_path).claim([tmp_path / "crawl.de.gz"])


def test_ctrl_c_keeps_what_was_downloaded(publisher: Publisher, tmp_path: Path) -> None:
    content = gzip.compress(text(GERMAN) * 1000)
    entry = offer(publisher, "crawl", "text", content, languages=("de",))
    publisher.files["/crawl/0.gz"].cuts.append(len(content) // 2)

    class Interrupted(Hurried):
        def wait(self, seconds: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download([entry], tmp_path, Interrupted())
    assert (tmp_path / "crawl.de.gz.part").stat().st_size == len(content) // 2
    download([entry], tmp_path, Hurried())
    assert publisher.gets() == [None, f"bytes={len(content) // 2}-"]
    assert texts(tmp_path) == {"crawl.de.gz": text(GERMAN) * 1000}


def test_only_one_process_at_a_time(publisher: Publisher, tmp_path: Path) -> None:
    with exclusive_lock(tmp_path):
        with pytest.raises(DataError, match="another process is downloading to it"):
            download(everything(publisher), tmp_path, Hurried())
    assert publisher.requests == []


@pytest.mark.parametrize("content", ["", "[]", '{"files": []}', '{"files": {}, "texts": {"a": null}}', "{"])
def test_a_damaged_manifest(publisher: Publisher, tmp_path: Path, content: str) -> None:
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
    entries = everything(publisher)[:4] + everything(publisher)[-2:]
    monkeypatch.chdir(tmp_path)
    download(entries, Path(name), Hurried())
    config = compose("prepare", shlex.split(prepare_command(entries, Path(name)))[2:])
    assert len(find_texts(config)) == 4
    assert config.bpe.codes == f"{name}/codes_x"
