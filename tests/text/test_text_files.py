"""The one opener of text files: compression by content, ends of lines, and what is not text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from xlmtrain.errors import DataError
from xlmtrain.text.bpe import Code, read_codes
from xlmtrain.text.text_files import file_problem, read_byte_lines, read_lines
from xlmtrain.text.vocab import Vocab

TEXT = b"".join(f"{i} Das Haus ist gro\u00df.\n".encode() for i in range(2000))


def zstd(window_log: int) -> Callable[[bytes], bytes]:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, enable_ldm=True)

    def compress(content: bytes) -> bytes:
        stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # the size is not in the header
        return stream.compress(content) + stream.flush()

    return compress


def tar(content: bytes, kind: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer, member = io.BytesIO(), tarfile.TarInfo("train.de")
    member.size = len(content)
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.de", content)
    return buffer.getvalue()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zstd": zstandard.compress,
    "zstd, skippable frame first": lambda content: b"\x50\x2a\x4d\x18\x02\x00\x00\x00ab" + zstandard.compress(content),
    "none": lambda content: content,
    **{f"zstd --long={log}": zstd(log) for log in (27, 28, 30, 31)},
}


@pytest.mark.parametrize("name", ["x.de", "x.GZ", "x.xz", "x.zst", "x"])
@pytest.mark.parametrize("kind", COMPRESS)
def test_compression_is_recognized_by_the_content(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(COMPRESS[kind](TEXT))
    assert b"".join(line + b"\n" for line in read_byte_lines(path)) == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar(TEXT), "a tar archive"),
        (gzip.compress(tar(TEXT)), "a tar archive"),
        (bz2.compress(tar(TEXT, tarfile.PAX_FORMAT)), "a tar archive"),
        (zstandard.compress(tar(TEXT, tarfile.GNU_FORMAT)), "a tar archive"),
        (zipped(TEXT), "a zip archive"),
        (gzip.compress(gzip.compress(TEXT)), "compressed twice"),
        (TEXT.decode().encode("utf-16"), "UTF-16"),
        (TEXT.decode().encode("utf-32"), "UTF-32"),
        (TEXT.decode().encode("utf-16-le"), "UTF-16"),
        (TEXT.replace(b"\n", b"\r"), "carriage return alone"),
        (TEXT.replace(b"\n", b"\r\r\n"), "several carriage returns"),
        (TEXT.replace(b"\n", b"\r\r\r\n"), "several carriage returns"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"{\\rtf1\\ansi Gut.}\n", "RTF of a word processor"),
        (b"SQLite format 3\0" + TEXT, "an SQLite database"),
        (b"ARROW1\0\0" + TEXT, "an Arrow table"),
        (b"\xff\xff\xff\xff\x10\0\0\0" + TEXT, "an Arrow table"),
        (b"\x89PNG\r\n\x1a\n" + TEXT, "a picture"),
    ],
)
def test_what_is_not_lines_of_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.de"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.de: is .*{message}"):
        list(read_byte_lines(path))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """As the shell's ``<(zcat ...)``: the reader opens a file twice."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is a pipe or a device, and must be read twice"):
        list(read_lines(tmp_path / "pipe", "codes"))
    problems = [file_problem(path) for path in (tmp_path / "pipe", tmp_path, tmp_path / "x", Path(__file__))]
    assert [str(problem).partition(" is ")[2].split()[:2] for problem in problems] == [
        ["a", "pipe"], ["a", "directory;"], ["not", "there"], []
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".XZ"])
def test_an_empty_compressed_file_is_damaged(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").touch()
    with pytest.raises(DataError, match="cannot be read to its end"):
        list(read_byte_lines(tmp_path / f"x{suffix}"))


def test_lines_are_numbered_and_lose_only_their_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes("\ufeff\ufeffeins\u2028\u0085\x0c\r\n\n zwei\rdrei \nlast".encode())
    assert list(read_lines(path, "words")) == [(1, "eins\u2028\u0085\x0c"), (2, ""), (3, " zwei\rdrei "), (4, "last")]


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes("Wort\ngrün\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.tsv:2: not UTF-8 .* a file of words\?"):
        list(read_lines(path, "words"))


def test_codes_and_vocabularies_are_read_compressed(tmp_path: Path) -> None:
    (tmp_path / "codes").write_bytes(gzip.compress(b"\xef\xbb\xbfa b</w> 7\r\n"))
    (tmp_path / "vocab").write_bytes(zstandard.compress("ab 7\n".encode("utf-8-sig")))
    assert read_codes(tmp_path / "codes") == [Code("a", "b</w>", 7)]
    assert Vocab.read(tmp_path / "vocab").tokens[-1] == "ab"


def test_codes_of_subword_nmt(tmp_path: Path) -> None:
    path = tmp_path / "codes"
    path.write_text("#version: 0.2\na b</w>\n", encoding="utf-8")
    assert read_codes(path) == [Code("a", "b</w>", 0)]
    path.write_text("#version: 0.1\na b</w>\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"codes:1: codes of subword-nmt before version 0\.2"):
        read_codes(path)
    path.write_text("a b</w>\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"codes:1: .*#version: 0\.2"):
        read_codes(path)
