"""A tokenized shard on disk: the text comes back, sorted words and counts with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xlmtrain.prepare.token_shards import (
    read_numbers,
    read_word_counts,
    read_words,
    write_tokenized,
    write_word_counts,
)

WORDS = ["\n", "und", "Äpfel", "apple", "unused", "\u2028x"]
TEXT = [2, 1, 3, 0, 0, 5, 1, 0]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_the_text_comes_back(tmp_path: Path, at_once: int) -> None:
    assert write_tokenized(tmp_path, "de", WORDS, np.array(TEXT, np.int32)) == [3, 1, 2, 5]
    words = read_words(tmp_path, "de")
    assert words == ["\n", "apple", "und", "Äpfel", "\u2028x"]
    blocks = list(read_numbers(tmp_path, "de", at_once))
    assert max(map(len, blocks)) <= at_once
    assert [words[number] for number in np.concatenate(blocks)] == [WORDS[number] for number in TEXT]


def test_words_that_were_not_counted_are_left_out(tmp_path: Path) -> None:
    write_tokenized(tmp_path, "de", WORDS, np.array(TEXT, np.int32))
    write_word_counts(tmp_path, "de", np.array([7, 0, 2, 1]))
    assert list(read_word_counts(tmp_path, "de")) == [("apple", 7), ("Äpfel", 2), ("\u2028x", 1)]


def test_no_text_is_no_words(tmp_path: Path) -> None:
    assert write_tokenized(tmp_path, "en", ["\n"], np.empty(0, np.int32)) == []
    assert read_words(tmp_path, "en") == ["\n"]
    assert list(read_numbers(tmp_path, "en", 10)) == []
