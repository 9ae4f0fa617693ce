"""Text files: raw lines, BPE codes, vocabularies."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt
from tests.support.mutations import COMPRESSIONS, compressed, damaged
from xlmtrain.text.bpe import Bpe, Code, read_codes, write_codes
from xlmtrain.text.text_files import MAX_LINE_BYTES, read_byte_lines, read_lines
from xlmtrain.text.vocab import Vocab

TEXT = "Guten Tag.\r\nDas ist\u0085ein Haus.\n\n\ufeffZwei\u2028Wörter\tund <mask>\n".encode()
CODES = b"a b 12\nab c</w> 7\n\xc3\x9f e 3\n"
SUBWORD_NMT = b"#version: 0.2\na b\nab c</w>\n"
VOCAB = "das@@ 90\nHaus 80\nü 80\n. 1\n".encode()
LINE = st.binary(max_size=40).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))


@given(content=compressed(damaged(TEXT)), limit=st.sampled_from((0, 1, 20)))
def test_lines_of_raw_text(place: Path, content: bytes, limit: int) -> None:
    path = place / "text"
    path.write_bytes(content)
    lines = attempt("raw text", lambda: [*read_byte_lines(path, limit)], len(content))
    assert not any(b"\n" in line or (limit and len(line) > limit + 1) for line in lines or ())
    for number, line in attempt("lines of UTF-8", lambda: [*read_lines(path, "text")], len(content)) or ():
        assert number > 0
        assert len(line) <= MAX_LINE_BYTES


@given(lines=st.lists(LINE), end=st.sampled_from((b"\n", b"\r\n")), name=st.sampled_from([*COMPRESSIONS]))
def test_written_lines_are_read_again(place: Path, lines: list[bytes], end: bytes, name: str) -> None:
    path = place / "text"
    path.write_bytes(COMPRESSIONS[name](b"x" + end + b"".join(line + end for line in lines)))
    found = attempt("raw text, written and read", lambda: [*read_byte_lines(path)], path.stat().st_size)
    assert found is None or found == [b"x", *lines]


@given(content=compressed(st.one_of(damaged(CODES), damaged(SUBWORD_NMT))))
def test_codes(place: Path, content: bytes) -> None:
    path, copy = place / "codes", place / "copy"
    path.write_bytes(content)
    codes = attempt("BPE codes", lambda: read_codes(path), len(content))
    if codes is not None:
        write_codes(codes, copy)
        assert read_codes(copy) == codes
        assert _status_of_fastbpe(copy) == 0


def _status_of_fastbpe(path: Path) -> int:
    """Return how a process ends in which fastBPE loads the codes: a mistake would end this one."""
    child = os.fork()
    if not child:
        try:
            Bpe(path).segment_all(["abc", "ße"])
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


@example(content=b"a " + b"9" * 5000 + b"\n", size=0, count=0)
@example(content=b"a " + b"9" * 20 + b"\n", size=0, count=0)
@given(content=compressed(damaged(VOCAB)), size=st.integers(0, 20), count=st.integers(0, 100))
def test_vocabulary(place: Path, content: bytes, size: int, count: int) -> None:
    path, copy = place / "vocab", place / "copy"
    path.write_bytes(content)
    vocab = attempt("vocabulary", lambda: Vocab.read(path, size, count), len(content))
    if vocab is not None:
        assert len(set(vocab.tokens)) == len(vocab.tokens) == len(vocab.counts)
        assert (vocab.counts >= 0).all()
        vocab.write(copy)
        if len(vocab) > 14:
            assert Vocab.read(copy).fingerprint == vocab.fingerprint


WORD = st.text(min_size=1, max_size=9).filter(lambda word: not any(char.isspace() or char in "\r\n" for char in word))


@given(pairs=st.lists(st.tuples(WORD, WORD), min_size=1, unique=True), count=st.integers(0, 1 << 40))
def test_written_codes_are_read_again(place: Path, pairs: list[tuple[str, str]], count: int) -> None:
    codes = [Code(left, right, count) for left, right in pairs]
    write_codes(codes, place / "codes")
    found = attempt("BPE codes, written and read", lambda: read_codes(place / "codes"), 100)
    assert found is None or found == codes
