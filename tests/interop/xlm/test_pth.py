"""The original's files are read as they are; nothing that a hostile one asks for ever runs."""

from __future__ import annotations

import copyreg
import io
import itertools
import mmap
import os
import pickle
import pickletools
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import evil_pickles as evil
from tests.support.xlm_files import FORMATS, WORDS, arrays, dictionary, dictionary_class, write
from xlmtrain.errors import CheckpointError, DataError
from xlmtrain.interop.xlm import safe_pickle
from xlmtrain.interop.xlm.pth import Ignored, read_checkpoint_file, read_data_file

READERS: list[tuple[Callable[[Path], dict[str, Any]], type[Exception]]] = [
    (read_checkpoint_file, CheckpointError),
    (read_data_file, DataError),
]
NOWHERE = Path("marker")
every_reader = pytest.mark.parametrize(("reader", "error"), READERS, ids=["checkpoint", "data"])
every_container = pytest.mark.parametrize("container", evil.CONTAINERS)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file, or a directory, that must not come to be."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "something in the file was executed"


def refusal(reader: Callable[[Path], Any], error: type[Exception], path: Path, content: bytes) -> str:
    """The one line with which a file of this content is refused."""
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 320
    return message.removeprefix(f"{path}: ")


# --- Intact files ---


@pytest.mark.parametrize("package", ["xlm", "src"])
@pytest.mark.parametrize("form", FORMATS)
def test_data_in_every_format(tmp_path: Path, form: str, package: str) -> None:
    with dictionary_class(package) as cls:
        content = {"dico": dictionary(cls), **arrays([[14, 15], [], [18]]), "unk_words": {"ä": 2, "<unk>": 70_000}}
        write(tmp_path / "train.de.pth", content, form)
    read = read_data_file(tmp_path / "train.de.pth")
    assert list(read) == ["dico", "positions", "sentences", "unk_words"]
    assert read["dico"]["id2word"] == dict(enumerate(WORDS))
    assert read["dico"] == vars(content["dico"])
    assert read["unk_words"] == content["unk_words"]
    for key in ("positions", "sentences"):
        assert np.array_equal(read[key], content[key])
        assert read[key].dtype == content[key].dtype


def test_names_of_older_numpy(tmp_path: Path) -> None:
    path = tmp_path / "train.de.pth"
    content = arrays([[14]], np.int32)
    pickled = pickle.dumps(content, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(pickled)
    assert read_data_file(path)["sentences"].tolist() == [14, 1]


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle"])
def test_arrays_are_looked_at_in_the_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / "train.de.pth"
    sentences = np.arange(1 << 16, dtype=np.uint16)
    write(path, {"sentences": sentences}, form)
    read = read_data_file(path)["sentences"]
    assert np.array_equal(read, sentences)
    assert not read.flags.writeable
    assert isinstance(base_of(read), mmap.mmap)
    assert len(base_of(read)) == path.stat().st_size


def base_of(array: Any) -> Any:
    """Where the array's bytes are."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


@pytest.mark.parametrize("form", ["torch, protocol 2", "old torch, protocol 2"])
def test_checkpoint_with_numbers_of_numpy(tmp_path: Path, form: str) -> None:
    path = tmp_path / "checkpoint.pth"
    weights = {"module.w": torch.randn(3, 4), "half": torch.ones(2, dtype=torch.float16)}
    numpys = {"scores": np.array([1.5, 2.5]), "ppl": np.float64(3.5), "names": np.array(["a", None], dtype=object)}
    plain = {"dropout": 0.1, "langs": ["de", "en"], "id2lang": {0: "de"}, "many": 1 << 40, "none": None}
    write(path, {"model": weights, "params": {**plain, **numpys}}, form)
    read = read_checkpoint_file(path)
    assert list(read) == ["model", "params"]
    assert all(torch.equal(read["model"][name], value) for name, value in weights.items())
    assert {key: read["params"][key] for key in plain} == plain
    assert all(type(read["params"][key]) is Ignored for key in numpys)
    assert Ignored not in [entry[0] for entry in torch.serialization.get_safe_globals() if isinstance(entry, tuple)]


def test_the_originals_own_checkpoints(shared: Path, reference: dict[str, Any]) -> None:
    for name in ("checkpoint.pth", "best-valid_mlm_ppl.pth"):
        read = read_checkpoint_file(shared / "reference" / name)
        assert {"model", "dico_id2word", "dico_counts", "params"} <= read.keys()
        assert read["model"].keys() == reference["state_dict"].keys()
        assert read["params"]["emb_dim"] == 64
        assert read["params"]["id2lang"] == {0: "de", 1: "en"}


def test_the_originals_own_data(shared: Path) -> None:
    paths = sorted((shared / "reference" / "data").glob("*.pth"))
    assert len(paths) == 12
    for path in paths:
        read = read_data_file(path)
        assert read["sentences"].dtype == np.uint16
        assert (read["sentences"][read["positions"][:, 1]] == 1).all()
        assert len(read["dico"]["id2word"]) == 200


# --- What is hostile ---


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # they leave files open and processes running
@pytest.mark.parametrize("name", evil.live(NOWHERE))
def test_the_hostile_files_would_do_harm(marker: Path, name: str) -> None:
    """Else the tests below would show nothing."""
    try:
        pickle.loads(evil.live(marker)[name][0])  # noqa: S301
    except TypeError:  # after the harm was done
        assert marker.exists()
    deadline = time.monotonic() + 10
    while not marker.exists() and time.monotonic() < deadline:  # one of them does not wait for its process
        os.sched_yield()
    assert marker.exists()
    if marker.is_dir():
        marker.rmdir()
    else:
        marker.unlink()


@every_reader
@every_container
@pytest.mark.parametrize("name", evil.live(NOWHERE))
def test_nothing_is_executed(
    marker: Path, tmp_path: Path, name: str, container: str, reader: Callable, error: type[Exception]
) -> None:
    content, named = evil.live(marker)[name]
    message = refusal(reader, error, tmp_path / "x.pth", evil.CONTAINERS[container](content))
    if reader is read_data_file or container != "bare":  # torch's checkpoints are more than one pickle
        assert named in message
    if named and "asks for" in message:
        assert message.endswith("was refused and not executed")


@every_reader
@every_container
@pytest.mark.parametrize("name", evil.suspicious(NOWHERE))
def test_nothing_else_is_let_through(
    marker: Path, tmp_path: Path, name: str, container: str, reader: Callable, error: type[Exception]
) -> None:
    refusal(reader, error, tmp_path / "x.pth", evil.CONTAINERS[container](evil.suspicious(marker)[name]))


@every_reader
@every_container
@pytest.mark.parametrize("name", evil.DAMAGED)
def test_damage_is_an_error(
    tmp_path: Path, name: str, container: str, reader: Callable, error: type[Exception]
) -> None:
    if "as a key" in name and reader is read_checkpoint_file:
        pytest.skip("torch hashes the key: it may take for ever, and executes nothing")
    refusal(reader, error, tmp_path / "x.pth", evil.CONTAINERS[container](evil.DAMAGED[name]))


@every_reader
def test_registered_extensions_are_not_called(
    marker: Path, tmp_path: Path, reader: Callable, error: type[Exception]
) -> None:
    touch = evil.text(f"touch {marker}")
    copyreg.add_extension("os", "system", 7)
    try:
        for container in evil.CONTAINERS.values():
            refusal(reader, error, tmp_path / "x.pth", container(evil.program(evil.call(b"\x82\x07", touch))))
    finally:
        copyreg.remove_extension("os", "system", 7)


def test_a_dictionary_cannot_be_given_a_behaviour(tmp_path: Path, marker: Path) -> None:
    """Its attributes are entries of a dict, whatever they are called; what they hold is refused as anywhere."""
    named = evil.name("xlm.data.dictionary", "Dictionary") + b")\x81}"
    body = b"}" + evil.text("dico") + named + evil.text("__class__") + evil.text("x") + b"sbs"
    path = tmp_path / "x.pth"
    path.write_bytes(evil.program(body))
    assert read_data_file(path) == {"dico": {"__class__": "x"}}
    assert type(read_data_file(path)["dico"]) is dict


def test_torch_is_asked_once_and_for_weights_only(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    load = torch.load

    def watched(*arguments: Any, **options: Any) -> Any:
        asked.append(options)
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", watched)
    hostile = evil.live(marker)["os.system"][0]
    for container, (reader, error) in itertools.product(evil.CONTAINERS.values(), READERS):
        refusal(reader, error, tmp_path / "x.pth", container(hostile))
    assert asked == []
    for container in (evil.legacy, evil.archive):
        (tmp_path / "x.pth").write_bytes(container(evil.program(b"}")))
        assert read_checkpoint_file(tmp_path / "x.pth") == {}
    assert asked == [{"map_location": "cpu", "weights_only": True, "mmap": False}] * 2


# --- Containers ---


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


# --- Arrays ---


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, np.float32),
        np.zeros(3, ">i8"),
        np.zeros(3, np.uint8),
        np.zeros(3, np.uint32),
        np.zeros((2, 2, 2), np.int64),
        np.zeros((), np.int64),
        np.asfortranarray(np.zeros((3, 2), np.int64)),
        np.array(["a", None], dtype=object),
        np.zeros(2, [("a", np.int64)]),
        np.array(["2000-01-01"], "M8[D]"),
        np.int64(3),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["torch", "torch, protocol 2"])
def test_arrays_that_data_does_not_have(tmp_path: Path, array: Any, form: str) -> None:
    write(tmp_path / "x.pth", {"sentences": array}, form)
    with pytest.raises(DataError, match=r"an array in it|asks for"):
        read_data_file(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x02\x85", b"K\x03\x85"),  # a larger shape
        (b"K\x02\x85", b"K\x01\x85"),  # a smaller one
        (b"K\x02\x85", b"N\x85"),  # none
        (b"K\x02\x85", b"\x88\x85"),  # no number
        (b"K\x02\x85", b"J\xfe\xff\xff\xff\x85"),  # a negative one
        (b"K\x02\x85", b"\x8a\x09" + b"\x01" * 9 + b"\x85"),  # one that no index holds
        (b"i4", b"i5"),
        (b"i4", b"O8"),
    ],
)
def test_shapes_that_do_not_fit_the_bytes(tmp_path: Path, old: bytes, new: bytes) -> None:
    content = pickletools.optimize(pickle.dumps({"sentences": np.array([14, 1], np.int32)}, 3))
    assert old in content
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    assert read_data_file(path)["sentences"].tolist() == [14, 1]
    message = refusal(read_data_file, DataError, path, content.replace(old, new, 1))
    assert message.startswith(("an array in it", "damaged: an array in it"))


DTYPE = evil.call(evil.name("numpy", "dtype"), evil.text("i8"), b"\x89", b"\x88")
STATE = b"(K\x01K\x00\x85" + DTYPE + b"\x89" + evil.raw(b"") + b"tb"


@pytest.mark.parametrize(
    "body",
    [
        evil.call(evil.name("_codecs", "encode"), evil.text("a"), evil.text("utf-8")),
        evil.ARRAY + STATE,  # the type's byte order was never given
        evil.name("xlm.data.dictionary", "Dictionary") + b")\x81}K\x01NsbN",
        evil.name("numpy", "dtype") + b")\x81",
    ],
)
def test_values_that_are_never_half_made(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "x.pth"
    refusal(read_data_file, DataError, path, evil.program(b"}" + evil.text("sentences") + body + b"s"))


@pytest.mark.parametrize("body", [b"}}", b"}("])
def test_more_than_one_value(tmp_path: Path, body: bytes) -> None:
    assert "ends with" in refusal(read_data_file, DataError, tmp_path / "x.pth", evil.program(body))


def test_a_version_of_torch_that_never_was(tmp_path: Path) -> None:
    content = evil.legacy(sound_pickle())
    assert content.count(b"M\xe9\x03.") == 1
    (tmp_path / "x.pth").write_bytes(content)
    assert read_data_file(tmp_path / "x.pth")["sentences"].tolist() == [14, 15, 1]
    message = refusal(read_data_file, DataError, tmp_path / "x.pth", content.replace(b"M\xe9\x03.", b"M\xea\x03."))
    assert message == "not as torch wrote files before 1.6"
