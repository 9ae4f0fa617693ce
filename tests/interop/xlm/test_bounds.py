"""Files that ask for much more memory than they have bytes are refused before they get it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import evil_pickles as evil
from tests.support.fuzzing import attempt
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.xlm.pth import read_checkpoint_file, read_data_file

HALVES = 250_000
ENCODE, LATIN1 = evil.name("_codecs", "encode"), evil.text("latin1")
LONG_TEXT = b"}" + evil.text("text") + evil.text("y" * 300_000) + b"q\x01s"
"""A dict with a text that is then fetched by ``h\\x01``."""


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def items(values: list[bytes]) -> bytes:
    return b"(" + b"".join(number(i) + value for i, value in enumerate(values)) + b"u"


def named(values: list[bytes]) -> bytes:
    return b"}(" + b"".join(evil.text(f"w{i}") + value for i, value in enumerate(values)) + b"u"


def tensor(key: str) -> bytes:
    """All of the storage ``key``, as torch writes it."""
    kind = evil.text("storage") + evil.name("torch", "HalfStorage")
    storage = b"(" + kind + evil.text(key) + evil.text("cpu") + number(HALVES) + b"tQ"
    hooks = evil.name("collections", "OrderedDict") + b")R"
    rebuild = evil.name("torch._utils", "_rebuild_tensor_v2")
    return evil.call(rebuild, storage, b"K\x00", number(HALVES) + b"\x85", b"K\x01\x85", b"\x89", hooks)


def doubled(times: int) -> bytes:
    """Bytes that double with every call."""
    value = ENCODE + evil.text("abcd") + LATIN1 + b"\x86R"
    for _ in range(times):
        value = ENCODE + b"(" + value + evil.text("hex_codec") + b"tR"
    return value


def array() -> bytes:
    """An array whose bytes are the long text."""
    made = evil.call(evil.name("numpy.core.multiarray", "_reconstruct"), evil.name("numpy", "ndarray"))
    kind = evil.call(evil.name("numpy", "dtype"), evil.text("u2")) + b"(K\x03" + evil.text("<") + b"tb"
    content = ENCODE + b"h\x01" + LATIN1 + b"\x86R"
    return made + b"(K\x01" + number(150_000) + b"\x85" + kind + b"\x89" + content + b"tb"


def checkpoint(body: bytes, **members: bytes) -> bytes:
    return evil.archive(evil.program(body), **members)


STORED = bytes(2 * HALVES)
SPELLINGS = ["".join(letters) for letters in itertools.product("aA", "bB", "cC", "dD", "eE", "fF", "gG", "hH")]
BOMBS: dict[str, tuple[Callable[[Path], Any], bytes]] = {
    "an array of zeros": (
        read_checkpoint_file,
        checkpoint(named([evil.call(evil.name("builtins", "bytearray"), number(200_000_000))])),
    ),
    "a codec that doubles": (read_checkpoint_file, checkpoint(named([doubled(25)]))),
    "one text encoded often": (
        read_checkpoint_file,
        checkpoint(LONG_TEXT + items([ENCODE + b"h\x01" + LATIN1 + b"\x86R"] * 1000)),
    ),
    "one long text encoded a few times": (
        read_checkpoint_file,
        checkpoint(
            b"}"
            + evil.text("t")
            + evil.text("y" * 2_000_000)
            + b"q\x01s"
            + items([ENCODE + b"h\x01" + LATIN1 + b"\x86R"] * 200)
        ),
    ),
    "sets of one list": (
        read_checkpoint_file,
        checkpoint(
            b"}"
            + evil.text("list")
            + b"]("
            + b"".join(map(number, range(3000)))
            + b"eq\x01s"
            + items([evil.call(evil.name("builtins", "set"), b"h\x01")] * 1000)
        ),
    ),
    "one storage under many spellings": (
        read_checkpoint_file,
        checkpoint(named([tensor(name) for name in SPELLINGS]), **{"x/data/abcdefgh": STORED}),
    ),
    "one storage before a NUL": (
        read_checkpoint_file,
        checkpoint(named([tensor(f"0\0{name}") for name in SPELLINGS]), **{"x/data/0": STORED}),
    ),
    "many halves of one storage": (
        read_model,
        checkpoint(b"}" + evil.text("model") + named([tensor("0")] * 300) + b"s", **{"x/data/0": STORED}),
    ),
    "arrays of one text": (read_data_file, evil.program(LONG_TEXT + items([array()] * 500))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_little_memory(tmp_path: Path, name: str) -> None:
    read, content = BOMBS[name]
    path = tmp_path / "bomb.pth"
    path.write_bytes(content)
    assert attempt(name, lambda: read(path), len(content)) is None
