"""Ids of lines by a Hugging Face tokenizer, each distinct word encoded once.

For tokenizers that join nothing across a space, a word between single spaces has the same ids in every line. Lines with
other white space, with added tokens or with letters outside Latin are encoded as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from xlmtrain.text.tokenizer import LINE_END, gather

MAX_WORDS = 1 << 19
"""Words that are remembered."""

_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Precompiled"}
_DROP_SPACES = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_LETTERS = [*map(chr, (*range(0x21, 0x300), *range(0x2010, 0x2060), 0x20AC, 0x2122))]
_ODD = 1
"""Row of words that are not plain, which is empty."""


class WordIds:
    """Lines -> ids + 1, ``LINE_END`` after every line, by a table of words: row n of their ids is
    ``_values[_ends[n] : _ends[n + 1]]``. Row 0 is the line end.

    ``tokenizer``: one that :func:`splits_at_spaces`, without truncation. ``encode``: lines -> their ids.
    """

    def __init__(self, tokenizer: Any, encode: Callable[[list[str]], Sequence[Sequence[int]]]) -> None:
        self._encode, self._normalize = encode, _normalizer(tokenizer)
        # Between letters, so that no normalizer strips the space of which some accents consist.
        between, nothing = [self._normalize(f"a{letter}a") for letter in _LETTERS], self._normalize("aa")
        plain = [c for c, text in zip(_LETTERS, between) if text != nothing and not _has_space(c + text)]
        self._plain = re.compile(f" ?[{re.escape(''.join(plain))}]+")
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._added, self._normalized_added = _any_of(added), _any_of(map(self._normalize, added))
        self._clear()

    def _clear(self) -> None:
        self._rows = _Rows(self._is_plain)
        self._values, self._ends = np.array([LINE_END], np.int32), np.array([0, 1, 1])

    def _is_plain(self, word: str) -> bool:
        """Return True if the ids of ``word``, and of the space before it, are those that it has in any line."""
        if not self._plain.fullmatch(word) or self._added.search(word):
            return False
        return not self._normalized_added.search(self._normalize(word))

    def numbers(self, text: str) -> np.ndarray:
        """Return the ids + 1 of lines that each end with a newline, int32, ``LINE_END`` after every line."""
        if len(self._rows) > MAX_WORDS:
            self._clear()
        # The separator must not be in the text: a word that has it is not plain.
        words = text.replace("\0", "\u3000").replace(" ", "\0 ").replace("\n", "\0\n\0").split("\0")[:-1]
        rows = np.fromiter(map(self._rows.__getitem__, words), np.int64, len(words))
        self._encode_new()
        line_of = np.cumsum(rows == 0) - (rows == 0)
        odd = np.unique(line_of[rows == _ODD])
        if not len(odd):
            return gather(self._values, self._ends, rows)[0]
        values, _ = gather(self._values, self._ends, rows[~np.isin(line_of, odd) | (rows == 0)])
        lines = text.split("\n")
        ids = self._encode([lines[i] for i in odd])
        places = np.repeat(np.flatnonzero(values == LINE_END)[odd], list(map(len, ids)))
        return np.insert(values, places, _numbers(ids))

    def _encode_new(self) -> None:
        """Add the ids of new words to the table."""
        words, self._rows.new = self._rows.new, []
        if words:
            ids, rows = self._encode(words), len(self._rows) + 1 - len(words)
            self._values = _extended(self._values, int(self._ends[rows]), _numbers(ids))
            ends = self._ends[rows] + np.cumsum(np.fromiter(map(len, ids), np.int64, len(ids)))
            self._ends = _extended(self._ends, rows + 1, ends)


class _Rows(dict[str, int]):
    """Word -> row. A new plain word gets the next row and is appended to ``new``; others are not kept."""

    def __init__(self, is_plain: Callable[[str], bool]) -> None:
        super().__init__({"\n": 0})
        self.new: list[str] = []
        self._is_plain = is_plain

    def __missing__(self, word: str) -> int:
        if not self._is_plain(word):
            return _ODD
        row = self[word] = len(self) + 1
        self.new.append(word)
        return row


def splits_at_spaces(content: bytes, tokenizer: Any) -> bool:
    """Return True if ``tokenizer``, of a ``tokenizer.json``, is known to encode a word with the space before it by
    itself."""
    settings, normalize = json.loads(content), _normalizer(tokenizer)
    normalizers = list(_steps(settings.get("normalizer"), "normalizers"))
    splits: list[Mapping[str, Any]] = [*_steps(settings.get("pre_tokenizer"), "pretokenizers"), {}]
    first, others = splits[0], splits[1:]
    kind, drops_spaces = first.get("type"), first.get("type") in _DROP_SPACES
    is_metaspace = kind == "Metaspace" and first.get("split", True) and first["replacement"] == "▁"
    always = is_metaspace and first.get("prepend_scheme", "always") == "always"
    return (
        (drops_spaces or is_metaspace or (kind == "ByteLevel" and first.get("use_regex", True)))
        and (drops_spaces or all(step.get("type") != "Metaspace" for step in others))
        and all(
            step["type"] in _NORMALIZERS
            or (step["type"] == "Strip" and (always or drops_spaces))
            or (step["type"] == "Replace" and _replaces_spaces(step["pattern"].get("Regex"), step["content"]))
            for step in normalizers
        )
        and not settings["model"].get("dropout")
        and not any(
            _has_space(token + normalize(token)) and not re.fullmatch(" {2,}", token)
            for token in (token["content"] for token in settings["added_tokens"])
        )
    )


def _replaces_spaces(pattern: str | None, content: str) -> bool:
    """Return True if a replacement leaves words and single spaces unchanged."""
    return pattern == " {2,}" or (pattern == r"\s+" and content == " ")


def _normalizer(tokenizer: Any) -> Callable[[str], str]:
    return str if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str


def _steps(part: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a part of a tokenizer, which may be sequences of steps."""
    if part is not None and part["type"] == "Sequence":
        for step in part[key]:
            yield from _steps(step, key)
    elif part is not None:
        yield part


def _has_space(text: str) -> bool:
    return any(map(str.isspace, text))


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, filter(None, texts))) or "(?!)")


def _numbers(ids: Iterable[Sequence[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(ids), np.int32) + 1


def _extended(array: np.ndarray, used: int, new: np.ndarray) -> np.ndarray:
    """Return ``array`` with ``new`` after its first ``used`` entries, twice as long if it is too short."""
    if used + len(new) > len(array):
        array = np.concatenate([array[:used], np.empty(max(used, len(new)), array.dtype)])
    array[used : used + len(new)] = new
    return array
