"""Hypothesis strategies for damaged files: a valid one with changes, or anything at all."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterator
from typing import Any

import zstandard
from hypothesis import strategies as st

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zst": zstandard.ZstdCompressor().compress,
}
_PIECES = (
    *(b"\x00", b"\r", b"\n", b"\r\n", b"\n\n", b"\t", b" ", b"  ", b"\x0b", b"\xef\xbb\xbf", "\x85".encode()),
    *("\u2028".encode(), "\u3000".encode(), "ß".encode(), "１".encode(), b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x80"),
    *(b"0", b"-1", b"1_0", b"+1", b"1e999", b"nan", b"inf", b"9" * 25, b"9" * 5000, b"\xff" * 8, b"\x7f" + b"\xff" * 7),
    *(b'"', b"'", b"{", b"}", b"[" * 5000, b"null", b":", b"=", b"#", b"@@", b"</w>", b"<s>", b"../", b"&x;", b"${x}"),
)
_NUMBERS = re.compile(rb"\d+")
_DEEP, _HUGE = "\x01deep", "\x01huge"  # written as JSON that Python's own encoder cannot write
_DEEP_JSON, _HUGE_JSON = "[" * 20_000 + "]" * 20_000, "9" * 5000
ODD_VALUES = (
    *(None, True, False, 0, 1, -1, 1 << 31, 1 << 60, 1 << 64, 10**400, 0.5, 1e308, float("inf"), float("nan")),
    *("", "x", "de", "\ud800", "../../x", "\x00", "a" * 300, [], {}, [[]], [None], [0, 0], ["de", "de"], {"": None}),
    *({"a": {"b": 1}}, [{}], {"de": 1}, {"type": None}),
)


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """``valid`` with one to three changes: bits flipped, spans cut, inserted, doubled, numbers replaced."""
    content = valid
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        end = begin + draw(st.sampled_from((1, 2, 4, 8, 40, 1 << 20)))
        kind = draw(st.sampled_from(("flip", "cut", "truncate", "insert", "replace", "double", "number")))
        head, span, tail = content[:begin], content[begin:end], content[end:]
        piece = draw(st.sampled_from(_PIECES)) if kind in ("insert", "replace", "number") else b""
        if kind == "flip" and span:
            content = head + bytes([span[0] ^ 1 << draw(st.integers(0, 7))]) + content[begin + 1 :]
        elif kind == "number" and (found := _NUMBERS.search(content, begin)):
            content = content[: found.start()] + piece + content[found.end() :]
        else:
            content = {"cut": head + tail, "truncate": head, "double": head + span * 2 + tail}.get(
                kind, head + piece + (span if kind == "insert" else b"") + tail
            )
    return content


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """Mostly ``valid`` with changes, else free-form bytes or text."""
    text = st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(mutated(valid), mutated(valid), mutated(valid), st.binary(max_size=200), text)


def compressed(content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The content in any compression, of which one in three is damaged."""
    written = st.builds(lambda name, content: COMPRESSIONS[name](content), st.sampled_from([*COMPRESSIONS]), content)
    return st.one_of(written, written, written.flatmap(mutated))


def mutated_value(value: Any, odd: tuple[Any, ...] = ODD_VALUES) -> st.SearchStrategy[Any]:
    """A nested value with one to three nodes replaced by an odd value, removed, renamed, or doubled."""

    @st.composite
    def strategy(draw: st.DrawFn) -> Any:
        changed = value
        for _ in range(draw(st.integers(1, 3))):
            path = draw(st.sampled_from([*_paths(changed)]))
            kind = draw(st.sampled_from(("odd", "odd", "odd", "remove", "rename", "double")))
            changed = _changed(changed, path, kind, draw(st.sampled_from(odd)))
        return changed

    return strategy()


def damaged_json(value: Any) -> st.SearchStrategy[bytes]:
    """JSON of ``value`` with nodes changed, with bytes changed, or of anything at all."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    anything = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=9,
    )
    values = mutated_value(value, (*ODD_VALUES, _DEEP, _HUGE))
    return st.one_of(values.map(_json), values.map(_json), damaged(_json(value)), anything.map(_json))


def _json(value: Any) -> bytes:
    text = json.dumps(value).replace(json.dumps(_DEEP), _DEEP_JSON).replace(json.dumps(_HUGE), _HUGE_JSON)
    return text.encode()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to every node; of a long list only to the first entries."""
    yield path
    if isinstance(value, dict):
        for key in [*value][:60]:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, (list, tuple)):
        for index in range(min(len(value), 3)):
            yield from _paths(value[index], (*path, index))


def _changed(value: Any, path: tuple[Any, ...], kind: str, odd: Any) -> Any:
    """Return a copy of ``value`` with the node at ``path`` changed."""
    if not path:
        return odd
    key, *rest = path
    if isinstance(value, dict):
        items = dict(value)
        if rest or kind == "odd":
            items[key] = _changed(value[key], tuple(rest), kind, odd)
        elif kind == "double":
            items[f"{key} again"] = value[key]
        else:
            del items[key]
            items |= {f"{key}x": value[key]} if kind == "rename" else {}
        return items
    entries = list(value)
    if rest or kind in ("odd", "rename"):
        entries[key] = _changed(value[key], tuple(rest), kind, odd)
    else:
        entries[key : key + 1] = [value[key]] * 2 if kind == "double" else []
    return type(value)(entries)
