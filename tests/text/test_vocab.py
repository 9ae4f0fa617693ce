"""The vocabulary: ids by place, odd files are read as by the original XLM, or refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from xlmtrain.errors import DataError
from xlmtrain.text.vocab import EOS, MASK, PAD, SPECIALS, UNK, Vocab


def read(tmp_path: Path, text: str, **limits: int) -> Vocab:
    path = tmp_path / "vocab"
    path.write_bytes(text.encode())
    return Vocab.read(path, **limits)


def test_special_symbols_have_the_ids_of_the_released_models() -> None:
    assert (EOS, PAD, UNK, MASK, len(SPECIALS)) == (1, 2, 3, 5, 14)
    vocab = Vocab([("a", 2)])
    assert [vocab.token(i) for i in (0, 1, 2, 3, 4, 5, 13, 14)] == [
        "<s>",
        "</s>",
        "<pad>",
        "<unk>",
        "<special0>",
        "<special1>",
        "<special9>",
        "a",
    ]


def test_words_count_from_14_in_file_order(tmp_path: Path) -> None:
    vocab = read(tmp_path, "the 5\nKatz@@ 3\ne 3\n")
    assert len(vocab) == 17
    assert vocab.id("the") == 14
    assert vocab.id("e") == 16
    assert vocab.id("absent") == UNK
    assert vocab.counts.tolist() == [0] * 14 + [5, 3, 3]
    assert vocab.decode([14, 15, 16, 1]) == "the Katze </s>"
    assert vocab.decode([14, 15]) == "the Katz"


def test_special_symbols_in_running_text_are_dropped_except_unk(tmp_path: Path) -> None:
    vocab = read(tmp_path, "a 2\nb 1\n")
    assert vocab.encode(["a", "<s>", "</s>", "<pad>", "<special3>", "<unk>", "nowhere", "b"]) == [14, UNK, UNK, 15]


def test_odd_lines_are_skipped_and_later_ids_close_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        vocab = read(tmp_path, "a 9\nb\u2028 8\nc c 7\na 6\n<pad> 5\nd\u00a0e 4\n\nf 3\n")
    assert vocab.tokens[14:] == ["a", "f"]
    assert len(caplog.records) == 1
    assert "skipped 6 lines" in caplog.text
    assert "line 2" in caplog.text


@pytest.mark.parametrize(
    ("text", "line"),
    [("a 3\nb 4\n", 2), ("a 3\nb 2\nc x\n", 3), ("a 3.5\n", 1), ("a -1\n", 1), ("a 3\nb 2\nc 2\nd 3", 4)],
)
def test_bad_counts_are_an_error_with_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(DataError, match=f"vocab:{line}:"):
        read(tmp_path, text)


def test_unreadable_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        Vocab.read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no vocabulary"):
        read(tmp_path, "")
    (tmp_path / "latin1").write_bytes("a 3\nüb 2\n".encode("latin-1"))
    with pytest.raises(DataError, match="latin1:2: not UTF-8"):
        Vocab.read(tmp_path / "latin1")


def test_limits(tmp_path: Path) -> None:
    text = "a 9\nb 5\nc 5\nd 1\n"
    assert read(tmp_path, text, max_size=16).tokens[14:] == ["a", "b"]
    assert read(tmp_path, text, min_count=5).tokens[14:] == ["a", "b", "c"]
    assert read(tmp_path, text, max_size=15, min_count=5).tokens[14:] == ["a"]
    with pytest.raises(DataError, match=r"vocab\.min_count: 10 .*occurs 9 times"):
        read(tmp_path, text, min_count=10)


def test_from_counts_orders_by_count_then_code_points_and_holds_no_special() -> None:
    vocab = Vocab.from_counts({"b": 2, "ä": 2, "a": 2, "z": 7, "</s>": 100, "rare": 1}, min_count=2)
    assert vocab.tokens[14:] == ["z", "a", "b", "ä"]
    assert vocab.counts[14:].tolist() == [7, 2, 2, 2]


def test_write_and_read_keep_everything(tmp_path: Path) -> None:
    vocab = Vocab([("größer", 4), ("@-@", 4), ("x@@", 1)])
    vocab.write(tmp_path / "written")
    assert (tmp_path / "written").read_bytes() == "größer 4\n@-@ 4\nx@@ 1\n".encode()
    again = Vocab.read(tmp_path / "written")
    assert again.tokens == vocab.tokens
    assert again.fingerprint == vocab.fingerprint


def test_the_fingerprint_tells_order_but_not_counts() -> None:
    assert Vocab([("a", 2), ("b", 1)]).fingerprint == Vocab([("a", 7), ("b", 7)]).fingerprint
    assert Vocab([("a", 1), ("b", 1)]).fingerprint != Vocab([("b", 1), ("a", 1)]).fingerprint
