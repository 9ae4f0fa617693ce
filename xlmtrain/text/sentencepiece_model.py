"""Sentencepiece models, unigram or BPE, as tokenizers of Hugging Face's library.

The file is a message in the wire format of Protocol Buffers; field numbers are those of ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from xlmtrain.errors import DataError, damage_as

try:
    import tokenizers
except ImportError:
    tokenizers = None  # type: ignore[assignment]

_SPACE = "▁"
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(2, 7)
_UNIGRAM, _BPE = 1, 2


class _Piece(NamedTuple):
    text: str
    score: float
    kind: int


def sentencepiece_tokenizer(content: bytes, where: str) -> tuple[Any, str]:
    """Return the tokenizer of a ``.model``, and its unknown piece.

    Control symbols become special tokens, which are found in text, other than by sentencepiece itself. Raises
    DataError, which begins with ``where``, for a damaged file, and for models that the library cannot express.
    """
    with damage_as(DataError, f"{where}: not a sentencepiece model", "; copy it again"):
        model = _fields(content)
        pieces = [_piece(_fields(piece)) for piece in model.get(1, [])]
        trainer, normalizer = _fields(model[2][0]), _fields(model[3][0])
        kind, byte_fallback = _number(trainer, 3, _UNIGRAM), bool(_number(trainer, 35, 0))
        unknown = next(i for i, piece in enumerate(pieces) if piece.kind == _UNKNOWN)
        if len({piece.text for piece in pieces}) < len(pieces):
            raise ValueError("a piece occurs twice")
    if kind not in (_UNIGRAM, _BPE) or _number(trainer, 24, 0) or any(piece.kind == _UNUSED for piece in pieces):
        raise DataError(
            f"{where}: only unigram and BPE models can be read, with spaces before the words and without unused pieces"
        )
    with damage_as(DataError, f"{where}: a damaged sentencepiece model", "; copy it again"):
        if kind == _UNIGRAM:
            scores = [(piece.text, piece.score) for piece in pieces]
            algorithm: Any = tokenizers.models.Unigram(scores, unknown, byte_fallback)
        else:
            ids, unk = {piece.text: i for i, piece in enumerate(pieces)}, pieces[unknown].text
            merges = _merges([piece for piece in pieces if piece.kind not in (_BYTE, _CONTROL, _UNKNOWN)])
            algorithm = tokenizers.models.BPE(ids, merges, unk_token=unk, fuse_unk=True, byte_fallback=byte_fallback)
        tokenizer = tokenizers.Tokenizer(algorithm)
        tokenizer.normalizer = tokenizers.normalizers.Sequence(list(_normalizers(normalizer)))
        # Words are cached, where no piece goes from one to the next.
        texts = [piece.text for piece in pieces if piece.kind != _USER_DEFINED]
        if not any(_SPACE in text[1:] for text in texts):
            tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(_SPACE, "merged_with_next")
        elif all(re.fullmatch(f"{_SPACE}*[^{_SPACE}]*", text) for text in texts):
            words = tokenizers.Regex(f"{_SPACE}+[^{_SPACE}]*|[^{_SPACE}]+")
            tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(words, "isolated")
        steps = [
            tokenizers.decoders.Replace(_SPACE, " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
        tokenizer.decoder = tokenizers.decoders.Sequence([*steps, tokenizers.decoders.Strip(" ", 1, 0)])
        tokenizer.add_tokens(
            [
                tokenizers.AddedToken(piece.text, normalized=False, special=piece.kind != _USER_DEFINED)
                for piece in pieces
                if piece.kind in (_CONTROL, _USER_DEFINED)
            ]
        )
    return tokenizer, pieces[unknown].text


def _normalizers(settings: dict[int, list[Any]]) -> Iterator[Any]:
    """Yield the steps from raw text to text with ``▁`` for spaces."""
    steps = tokenizers.normalizers
    if charsmap := settings.get(2, [b""])[0]:
        yield steps.Precompiled(charsmap)
    if _number(settings, 4, 1):  # remove_extra_whitespaces
        yield steps.Replace(tokenizers.Regex(" {2,}"), " ")
        yield steps.Replace(tokenizers.Regex(r"\A | \z"), "")
    if _number(settings, 3, 1):  # add_dummy_prefix
        yield steps.Prepend(_SPACE)
    yield steps.Replace(" ", _SPACE)


def _merges(pieces: Sequence[_Piece]) -> list[tuple[str, str]]:
    """Return the pairs of pieces that are a piece together, by falling score of that, as sentencepiece merges them."""
    ids = {piece.text: i for i, piece in enumerate(pieces)}
    found = []
    for piece in pieces:
        for cut in range(1, len(piece.text)):
            left, right = piece.text[:cut], piece.text[cut:]
            if left in ids and right in ids:
                found.append((-piece.score, ids[piece.text], ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _piece(fields: dict[int, list[Any]]) -> _Piece:
    (score,) = struct.unpack("<f", fields[2][0]) if 2 in fields else (0.0,)
    return _Piece(fields[1][0].decode(), score, _number(fields, 3, 1))


def _number(fields: dict[int, list[Any]], field: int, default: int) -> int:
    value = fields.get(field, [default])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is not a number")
    return value


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Return the fields of a message by number: integers, or bytes. Raises ValueError, or IndexError at its end."""
    found: dict[int, list[Any]] = {}
    place = 0
    while place < len(message):
        value: Any
        tag, place = _varint(message, place)
        size = {1: 8, 5: 4}.get(tag & 7)
        if tag & 7 == 0:
            value, place = _varint(message, place)
        else:
            if tag & 7 == 2:
                size, place = _varint(message, place)
            if size is None or place + size > len(message):
                raise ValueError("it ends within a field")
            value, place = message[place : place + size], place + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Return the number of 7 bits a byte at ``place``, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (message[place] & 127) << shift
        place += 1
        if message[place - 1] < 128:
            return value, place
    raise ValueError("a number of more than 64 bits")
