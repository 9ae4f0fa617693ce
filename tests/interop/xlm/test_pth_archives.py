"""Archives and files of other kinds under the name .pth are refused, and so is damage of every kind."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support import evil_pickles as evil
from tests.support.pth_readers import NOWHERE, READERS, every_reader, refusal
from tests.support.xlm_files import arrays, dictionary, dictionary_class, write
from xlmtrain.errors import CheckpointError, DataError
from xlmtrain.interop.xlm import safe_pickle
from xlmtrain.interop.xlm.pth import read_checkpoint_file, read_data_file


def sound_pickle() -> bytes:
    return pickle.dumps(arrays([[14, 15]]), 2)


def zipped(write_members: Callable[[zipfile.ZipFile], None]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        write_members(archive)
    return file.getvalue()


def compressed(archive: zipfile.ZipFile) -> None:
    archive.writestr("x/data.pkl", sound_pickle(), zipfile.ZIP_DEFLATED)


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("x/data.pkl", sound_pickle())
    archive.writestr("x/data/0", bytes(1 << 24), zipfile.ZIP_DEFLATED)


def twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("x/data.pkl", sound_pickle())
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/data.pkl", sound_pickle())


def many(archive: zipfile.ZipFile) -> None:
    archive.writestr("x/data.pkl", sound_pickle())
    for i in range(10_000):
        archive.writestr(f"x/{i}", b"")


def flag_as_encrypted(content: bytes) -> bytes:
    """The flag in the local header and in the directory."""
    at = content.index(b"PK\x01\x02")
    return content[:6] + b"\x01" + content[7 : at + 8] + b"\x01" + content[at + 9 :]


def larger_than_the_file(content: bytes) -> bytes:
    at = content.index(b"PK\x01\x02")
    return content[: at + 20] + struct.pack("<II", 1 << 31, 1 << 31) + content[at + 28 :]


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "compressed": (zipped(compressed), "'x/data.pkl' in it is compressed or encrypted"),
    "bomb": (zipped(bomb), "'x/data/0' in it is compressed"),
    "encrypted": (flag_as_encrypted(evil.archive(sound_pickle())), "'x/data.pkl' in it is compressed or encrypted"),
    "too large": (larger_than_the_file(evil.archive(sound_pickle())), "larger than the file"),
    "many members": (zipped(many), "10,001 members"),
    "a second pickle": (
        evil.archive(sound_pickle(), **{"x/other.pkl": evil.live(NOWHERE)["os.system"][0]}),
        "2 pickles",
    ),
    "no pickle": (zipped(lambda archive: archive.writestr("x/data/0", b"1")), "0 pickles"),
    "a flipped bit": (evil.archive(sound_pickle()).replace(b"\x0e\x00\x0f", b"\x0e\x00\x0e"), ""),
    "more after the pickle": (evil.archive(sound_pickle() + b"}."), ""),
}


@every_reader
@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_torch_does_not_write(
    tmp_path: Path, name: str, reader: Callable, error: type[Exception]
) -> None:
    content, message = ARCHIVES[name]
    if name == "more after the pickle" and reader is read_checkpoint_file:
        pytest.skip("torch reads no further than the pickle")
    assert message in refusal(reader, error, tmp_path / "x.pth", content)


@every_reader
def test_a_name_that_occurs_twice(tmp_path: Path, reader: Callable, error: type[Exception]) -> None:
    assert "occurs twice" in refusal(reader, error, tmp_path / "x.pth", zipped(twice))


@every_reader
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><title>404</title>", "begins with b'<!DOCTYP', so it is no .pth file"),
        (b"PK\x03\x04", "not a zip file"),
        (b"\x80", "damaged"),
        (b"\x80\x02}.x", ""),
        (bytes(1000), "so it is no .pth file"),
    ],
)
def test_files_that_are_something_else(
    tmp_path: Path, content: bytes, message: str, reader: Callable, error: type[Exception]
) -> None:
    assert message in refusal(reader, error, tmp_path / "x.pth", content)


@every_reader
def test_what_is_no_file(tmp_path: Path, reader: Callable, error: type[Exception]) -> None:
    with pytest.raises(error, match=r": is a directory$"):
        reader(tmp_path)
    with pytest.raises(error, match=r"nowhere.pth: no such file$"):
        reader(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("form", ["torch", "old torch, protocol 2"])
def test_every_cut_is_noticed(tmp_path: Path, form: str) -> None:
    with dictionary_class() as cls:
        write(tmp_path / "data.pth", {"dico": dictionary(cls), **arrays([[14, 15]] * 20)}, form)
    write(
        tmp_path / "model.pth",
        {"model": {"w": torch.ones(50)}, "params": {}},
        form.replace("torch", "torch, protocol 2"),
    )
    for name, (reader, error) in zip(("model", "data"), READERS):
        content = (tmp_path / f"{name}.pth").read_bytes()
        reader(tmp_path / f"{name}.pth")
        for size in range(1, len(content), max(len(content) // 40, 1)):
            refusal(reader, error, tmp_path / "cut.pth", content[:size])


@pytest.mark.parametrize("name", ["x/data.pkl", "data/0"])
def test_every_byte_of_an_archive_counts(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": {"w": torch.randn(30)}, "params": {"a": "text"}}, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = next(member for member in archive.infolist() if member.filename.endswith(name.removeprefix("x")))
    start = info.header_offset + 30 + sum(struct.unpack_from("<HH", content, info.header_offset + 26))
    for at in range(start, start + info.file_size, 7):
        damaged = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
        assert "does not have its checksum" in refusal(read_checkpoint_file, CheckpointError, path, damaged)


def test_a_pickle_of_endless_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "MAX_STEPS", 100)
    for container in (evil.legacy, evil.archive):
        for reader, error in READERS:
            message = refusal(reader, error, tmp_path / "x.pth", container(evil.program(b"N" * 200)))
            assert "more than 100 steps" in message


def test_a_version_of_torch_that_never_was(tmp_path: Path) -> None:
    content = evil.legacy(sound_pickle())
    assert content.count(b"M\xe9\x03.") == 1
    (tmp_path / "x.pth").write_bytes(content)
    assert read_data_file(tmp_path / "x.pth")["sentences"].tolist() == [14, 15, 1]
    message = refusal(read_data_file, DataError, tmp_path / "x.pth", content.replace(b"M\xe9\x03.", b"M\xea\x03."))
    assert message == "not as torch wrote files before 1.6"
