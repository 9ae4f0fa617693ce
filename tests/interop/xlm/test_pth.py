"""The original's files are read as they are; nothing that a hostile one asks for ever runs."""

from __future__ import annotations

import copyreg
import itertools
import mmap
import os
import pickle
import pickletools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import evil_pickles as evil
from tests.support.pth_readers import NOWHERE, READERS, every_container, every_reader, refusal
from tests.support.xlm_files import FORMATS, WORDS, arrays, dictionary, dictionary_class, write
from xlmtrain.errors import DataError
from xlmtrain.interop.xlm.pth import Ignored, read_checkpoint_file, read_data_file

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
