"""Ids of lines by a Hugging Face tokenizer, each distinct word encoded once.

For tokenizers that join nothing across a space, a word between single spaces has the same ids in every line. Lines with
other white space, with added tokens or with letters outside Latin are encoded as a whole.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from xlmtrain.text.tokenizer import LINE_END, gather

MAX_WORDS = 1 << 19
"""Words that are remembered."""

_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Precompiled"}
_DROP_SPACES = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_SPACES_TO_ONE = (r"\s+", " {2,}")
_LETTERS = [*map(chr, (*range(0x21, 0x300), *range(0x2010, 0x2060), 0x20AC, 0x2122))]


class WordIds:
    """Lines -> ids + 1, ``LINE_END`` after every line, with a table of words: row n of its ids is
    ``_values[_ends[n] : _ends[n + 1]]``. Row 0 is the line end.

    ``encode``: lines -> their ids. ``tokenizer`` must be one that :func:`splits_at_spaces`.
    """

    def __init__(self, tokenizer: Any, encode: Callable[[list[str]], Sequence[Sequence[int]]]) -> None:
        self._encode = encode
        normalizer = tokenizer.normalizer
        normalized = _LETTERS if normalizer is None else map(normalizer.normalize_str, _LETTERS)
        plain = [c for c, text in zip(_LETTERS, normalized) if text and not any(map(str.isspace, c + text))]
        self._plain = re.compile(f" ?[{re.escape(''.join(plain))}]+")
        added = {_folded(token.content) for token in tokenizer.get_added_tokens_decoder().values()}
        self._added = re.compile("|".join(map(re.escape, sorted(filter(str.strip, added)))) or r"(?!)")
        self._clear()

    def _clear(self) -> None:
        self._rows = _Rows({"\n": 0})
        self._rows.new = []
        self._values, self._ends = np.array([LINE_END], np.int32), np.array([0, 1])
        self._is_odd = np.zeros(1, bool)

    def numbers(self, text: str) -> np.ndarray:
        """Return the ids + 1 of lines that each end with a newline, int32, ``LINE_END`` after every line."""
        if len(self._rows) > MAX_WORDS:
            self._clear()
        # The separator must not be in the text: a line that has it is encoded as a whole.
        words = text.replace("\0", "\u3000").replace(" ", "\0 ").replace("\n", "\0\n\0").split("\0")[:-1]
        rows = np.fromiter(map(self._rows.__getitem__, words), np.int64, len(words))
        self._encode_new()
        is_end = rows == 0
        line_of = np.cumsum(is_end) - is_end
        odd = np.unique(line_of[self._is_odd[rows]])
        values, ends = self._values, self._ends
        if len(odd):
            lines = text.split("\n")
            values, ends = _append(values, ends, self._encode([lines[i] for i in odd]))
            in_odd_line = np.isin(line_of, odd) & ~is_end
            begins = in_odd_line & np.append(True, is_end[:-1])
            rows[begins] = len(self._ends) - 1 + np.arange(len(odd))
            rows = rows[begins | ~in_odd_line]
        return gather(values, ends, rows)[0]

    def _encode_new(self) -> None:
        """Add the ids of new words. Those that are not plain have none of their own."""
        words, self._rows.new = self._rows.new, []
        plain = [bool(self._plain.fullmatch(word)) and not self._added.search(_folded(word)) for word in words]
        ids = iter(self._encode([word for word, is_plain in zip(words, plain) if is_plain]))
        found = [next(ids) if is_plain else () for is_plain in plain]
        self._values, self._ends = _append(self._values, self._ends, found)
        self._is_odd = np.append(self._is_odd, np.logical_not(plain))


class _Rows(dict[str, int]):
    """Word -> row. A new word gets the next row and is appended to ``new``."""

    new: list[str]

    def __missing__(self, word: str) -> int:
        row = self[word] = len(self)
        self.new.append(word)
        return row


def splits_at_spaces(content: bytes) -> bool:
    """Return True if a ``tokenizer.json`` is known to encode a word with the space before it by itself."""
    settings = json.loads(content)
    normalizers = list(_steps(settings.get("normalizer"), "normalizers"))
    first = next(_steps(settings.get("pre_tokenizer"), "pretokenizers"), {})
    kind, model = first.get("type"), settings["model"]
    always = kind == "Metaspace" and first.get("prepend_scheme", "always") == "always"
    return (
        (
            kind in _DROP_SPACES
            or (kind == "Metaspace" and first.get("split", True))
            or (kind == "ByteLevel" and first.get("use_regex", True))
        )
        and all(
            step["type"] in _NORMALIZERS
            or (step["type"] == "Strip" and (always or kind in _DROP_SPACES))
            or (step["type"] == "Replace" and step["pattern"].get("Regex") in _SPACES_TO_ONE and step["content"] == " ")
            for step in normalizers
        )
        and not model.get("dropout")
        and all(len(token["content"].split()) < 2 for token in settings["added_tokens"])
    )


def _steps(part: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a part of a tokenizer, which may be sequences of steps."""
    if part is not None and part["type"] == "Sequence":
        for step in part[key]:
            yield from _steps(step, key)
    elif part is not None:
        yield part


def _append(values: np.ndarray, ends: np.ndarray, ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Append rows to a table of ids + 1."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    new = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum())) + 1
    return np.concatenate([values, new]), np.concatenate([ends, ends[-1] + np.cumsum(lengths)])


def _folded(text: str) -> str:
    """Return ``text`` without case and accents, as a tokenizer may see it when it looks for added tokens."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
