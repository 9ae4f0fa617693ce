"""Members are read as streams, and hostile archives are refused before anything of them is used."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.evil_archives import TARS, TEXT, TOO_MANY, WANTED, ZIPS
from xlmtrain.download import archives
from xlmtrain.download.archives import check_archive, check_compressed, lines, open_compressed, open_member
from xlmtrain.errors import DataError


@pytest.fixture(autouse=True)
def _low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bombs that take no time to make."""
    monkeypatch.setattr(archives, "MAX_RATIO_FLOOR", 1 << 24)
    monkeypatch.setattr(archives, "MAX_MEMBERS", TOO_MANY)


def tree(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


@pytest.mark.parametrize(
    ("ending", "write"),
    [*((".tgz", write) for write in TARS.values()), *((".zip", write) for write in ZIPS.values())],
    ids=[*TARS, *ZIPS],
)
def test_hostile_archives_are_refused(tmp_path: Path, ending: str, write: Callable[[Path], None]) -> None:
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    path = place / f"archive{ending}"
    write(path)
    before = tree(tmp_path)
    with pytest.raises(DataError) as refusal:
        check_archive(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert str(refusal.value).count(str(path)) == 1
    assert len(str(refusal.value)) < 500
    assert tree(tmp_path) == before


def test_there_are_enough_hostile_archives() -> None:
    assert len(TARS) + len(ZIPS) >= 30


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("ending", [".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar"])
def test_members_of_tar(tmp_path: Path, ending: str, form: int) -> None:
    path = tmp_path / f"archive{ending}"
    compression = {".tgz": "gz", ".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".tar": ""}[path.suffix]
    long = "d" * 60 + "/" + "ü" * 40 + "/deep.de"
    contents = {"./first.en": b"Hello.\n", WANTED: TEXT, long: b"Tief.\n"}
    with tarfile.open(path, f"w:{compression}", format=form) as tar:
        directory = tarfile.TarInfo("./")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    check_archive(path)
    for name, content in {"first.en": b"Hello.\n", WANTED: TEXT, long: b"Tief.\n"}.items():
        with open_member(path, name) as stream:
            assert stream.read() == content
    with pytest.raises(DataError, match=r"holds no other, only d.*, first.en, text.de"):
        with open_member(path, "other"):
            pass


def test_members_of_zip(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dir/", b"")
        archive.writestr("dir/Größe.de", TEXT)
        archive.writestr("README", b"read me")
    check_archive(path)
    with open_member(path, "dir/Größe.de") as stream:
        assert stream.read() == TEXT
    with pytest.raises(DataError, match=f"holds no {WANTED}, only README, dir/Größe.de"):
        with open_member(path, WANTED):
            pass


def test_errors_of_the_reader_are_not_the_archives(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(TEXT))
    with pytest.raises(OSError, match="disk full"):
        with open_compressed(path):
            raise OSError("disk full")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    ending = {gzip.compress: ".gz", bz2.compress: ".bz2", lzma.compress: ".xz"}[compress]
    path = tmp_path / f"text{ending}"
    path.write_bytes(compress(TEXT) + compress(TEXT))
    with open_compressed(path) as stream:
        assert stream.read() == TEXT + TEXT
    assert check_compressed(path) == 4
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="is it damaged"):
        check_compressed(path)
    path.write_bytes(b"<html>404 not found</html>")
    with pytest.raises(DataError, match="is it damaged"):
        check_compressed(path)


def test_a_compression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(2):
            file.write(bytes(1 << 24))
    with pytest.raises(DataError, match="decompresses to far more"):
        check_compressed(path)


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "text"
    separated = "eins\u2028zwei\x0bdrei\x85vier".encode()
    stream = io.BytesIO(separated + b"\r\n\nGr\xfc\xdfe\nletzte")
    assert list(lines(stream, path)) == [separated.decode(), "", "", "letzte"]
    with pytest.raises(DataError, match="is this text"):
        list(lines(io.BytesIO(bytes(2 << 20)), path))
