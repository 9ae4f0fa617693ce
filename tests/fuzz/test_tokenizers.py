"""Tokenizers of others: ``tokenizer.json`` with the files beside it, sentencepiece models."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.foreign_tokenizers import KINDS, write_tokenizer
from tests.support.fuzzing import attempt
from tests.support.mutations import damaged, damaged_json
from xlmtrain.text.tokenizer_json import read_tokenizer


def field(number: int, value: bytes | int) -> bytes:
    """A field of a message, of at most 127 bytes."""
    return bytes([number << 3, value]) if isinstance(value, int) else bytes([number << 3 | 2, len(value)]) + value


def piece(text: str, score: float, kind: int) -> bytes:
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, kind))


MODEL = (
    b"".join(
        piece(text, -i, 3 if i in (1, 2) else 2 - (i > 2)) for i, text in enumerate(("<unk>", "<s>", "</s>", "▁a", "b"))
    )
    + field(2, field(3, 1))
    + field(3, field(3, 1) + field(4, 1))
)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, place: Path) -> Path:
    shutil.rmtree(place / "tokenizer", ignore_errors=True)
    return write_tokenizer(request.param, place / "tokenizer", 300)


@given(data=st.data())
def test_tokenizer_json(folder: Path, data: st.DataObject) -> None:
    path = folder / "tokenizer.json"
    valid = path.read_bytes()
    try:
        path.write_bytes(content := data.draw(damaged_json(json.loads(valid))))
        check(path, len(content))
    finally:
        path.write_bytes(valid)


@given(data=st.data(), name=st.sampled_from(["tokenizer_config.json", "special_tokens_map.json", "config.json"]))
def test_files_beside_it(folder: Path, data: st.DataObject, name: str) -> None:
    settings = {"mask_token": {"content": "<mask>"}, "pad_token": "<pad>", "vocab_size": 320}
    try:
        (folder / name).write_bytes(data.draw(damaged_json(settings)))
        check(folder, 20_000)
    finally:
        (folder / name).unlink()


@given(content=damaged(MODEL))
def test_sentencepiece_model(place: Path, content: bytes) -> None:
    path = place / "some.model"
    path.write_bytes(MODEL)
    assert read_tokenizer(path).special.mask == 6
    path.write_bytes(content)
    check(path, len(content))


def check(path: Path, size: int) -> None:
    """What is accepted has five different roles, and ids within its size."""
    vocab = attempt("tokenizer", lambda: read_tokenizer(path), size, fixed=256 << 20)
    if vocab is not None:
        assert max(vocab.special[:5]) < len(vocab) == len(vocab.tokens) == len(vocab.is_special)
        assert min(vocab.special.bos, vocab.special.eos, vocab.special.pad, vocab.special.mask) >= 0
