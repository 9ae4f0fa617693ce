"""Ids made word by word are those of whole lines, for every tokenizer that is encoded so."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from tests.support.foreign_tokenizers import KINDS, LINES, ODD_LINES, edit, write_tokenizer
from xlmtrain.text import word_ids
from xlmtrain.text.tokenizer import LINE_END
from xlmtrain.text.word_ids import WordIds, splits_at_spaces

METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": True}
SPACES = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
DIGITS = {"type": "Digits", "individual_digits": True}
STRIP = {"type": "Strip", "strip_left": True, "strip_right": True}


def added(content: str, **changes: bool) -> dict[str, Any]:
    defaults = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return {"content": content, **defaults, **changes}


SPLIT: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    ("byte_bpe", {"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}, "normalizer": {"type": "NFC"}}),
    ("byte_bpe", {"normalizer": SPACES}),
    ("unigram", {"pre_tokenizer": {**METASPACE, "prepend_scheme": "first"}, "normalizer": None}),
    ("unigram", {"pre_tokenizer": {**METASPACE, "prepend_scheme": "never"}}),
    ("unigram", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, SPACES, STRIP]}}),
    ("unigram", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, STRIP]}}),
    (
        "unigram",  # as transformers converts the tokenizer of XLM-R
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Strip", "strip_left": False, "strip_right": True},
                    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
                ],
            }
        },
    ),
    ("byte_bpe", {"normalizer": {"type": "NFKC"}, "added_tokens": [added("TM", rstrip=True)]}),
    ("byte_bpe", {"normalizer": None, "added_tokens": [added("´", rstrip=True), added("   ", rstrip=True)]}),
    (
        "unigram",
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}},
    ),
    ("wordpiece", {"normalizer": {**BERT, "lowercase": True}, "pre_tokenizer": {"type": "Whitespace"}}),
    ("wordpiece", {"added_tokens": [added("Über"), added("ing", rstrip=True), added("kind", single_word=True)]}),
]
WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("byte_bpe", {"pre_tokenizer": None}),
    ("byte_bpe", {"pre_tokenizer": {**BYTE_LEVEL, "use_regex": False}}),
    ("byte_bpe", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}}),
    ("byte_bpe", {"normalizer": STRIP}),
    ("byte_bpe", {"normalizer": {"type": "Prepend", "prepend": "▁"}}),
    ("byte_bpe", {"added_tokens": [added("New York")]}),
    ("byte_bpe", {"added_tokens": [added("foo ")]}),
    ("byte_bpe", {"normalizer": {"type": "NFKC"}, "added_tokens": [added("e¨f")]}),
    ("byte_bpe", {"added_tokens": [added(" ", single_word=True)]}),
    ("byte_bpe", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL, METASPACE]}}),
    ("unigram", {"pre_tokenizer": {**METASPACE, "replacement": "_"}}),
    ("unigram", {"pre_tokenizer": {**METASPACE, "split": False}}),
    ("unigram", {"pre_tokenizer": {**METASPACE, "prepend_scheme": "first"}, "normalizer": STRIP}),
    ("unigram", {"normalizer": {"type": "Replace", "pattern": {"String": "e"}, "content": " "}}),
]


def changed(kind: str, changes: dict[str, Any], folder: Path) -> tuple[bytes, tokenizers.Tokenizer]:
    path = write_tokenizer(kind, folder) / "tokenizer.json"
    if "added_tokens" in changes:
        before = json.loads(path.read_text(encoding="utf-8"))
        new = [{"id": 600 + i, **token} for i, token in enumerate(changes["added_tokens"])]
        changes = {**changes, "added_tokens": [*before["added_tokens"], *new]}
    edit(folder, **changes)
    return path.read_bytes(), tokenizers.Tokenizer.from_file(str(path))


def random_lines(count: int) -> list[str]:
    """Lines of everything that a border between words could be mistaken at."""
    draw = random.Random(0)
    parts = [*"aeßÄs0'.,-▁", *(" " * 12), "Haus", "über", "ing", "\u00ad", "\u00a0", "\t", "\u0308", "¨", "´", "\0"]
    parts += ["  ", "<mask>", "[MASK]", "<unk>", "ÜBER", "kind", "漢", "™", "‗", "TM", "\u200b", "\u0600", "…", "'s"]
    return ["".join(draw.choices(parts, k=draw.randrange(14))) for _ in range(count)]


@pytest.mark.parametrize(("kind", "changes"), SPLIT)
def test_ids_are_those_of_whole_lines(
    kind: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, tokenizer = changed(kind, changes, tmp_path / "tokenizer")
    assert splits_at_spaces(content, tokenizer)
    asked: list[str] = []

    def encode(lines: Sequence[str]) -> list[list[int]]:
        asked.extend(lines)
        return [found.ids for found in tokenizer.encode_batch_fast(lines, add_special_tokens=False)]

    lines = [*LINES[:400], *ODD_LINES, *random_lines(3000), *LINES[-400:]]
    expected = [encode([line])[0] for line in lines]
    words = WordIds(tokenizer, encode)
    for limit in (50, word_ids.MAX_WORDS):
        monkeypatch.setattr(word_ids, "MAX_WORDS", limit)
        for size in (7, 1000):
            for begin in range(0, len(lines), size):
                text = "".join(f"{line}\n" for line in lines[begin : begin + size])
                found: list[list[int]] = [[]]
                for number in words.numbers(text).tolist():
                    if number == LINE_END:
                        found.append([])
                    else:
                        found[-1].append(number - 1)
                assert found == [*expected[begin : begin + size], []]
    asked.clear()
    words.numbers("".join(f"{line}\n" for line in lines[:400]))
    tokens = [token["content"] for token in changes.get("added_tokens", [])]
    assert all(any(token in line for token in tokens) for line in asked), "words are known"


@pytest.mark.parametrize(("kind", "changes"), WHOLE)
def test_tokenizers_that_may_join_text_across_a_space_are_known(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    assert not splits_at_spaces(*changed(kind, changes, tmp_path / "tokenizer"))


def test_a_tokenizer_that_splits_at_random_encodes_whole_lines(tmp_path: Path) -> None:
    folder = write_tokenizer("byte_bpe", tmp_path / "tokenizer")
    settings = json.loads((folder / "tokenizer.json").read_bytes())
    settings["model"]["dropout"] = 0.1
    content = json.dumps(settings)
    assert not splits_at_spaces(content.encode(), tokenizers.Tokenizer.from_str(content))
