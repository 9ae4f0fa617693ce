"""The raw text files: which they are, what cannot be read, where lines end."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from xlmtrain.config.prepare import PrepareConfig, SplitConfig
from xlmtrain.errors import DataError
from xlmtrain.prepare.raw_files import Chunk, RawText, UnequalLengths, find_texts, read_chunks

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.compress(content[:1000]) + zstandard.compress(content[1000:]),  # two frames
}
# Hardly compressible, so that cutting the compressed file off leaves several blocks that can be read.
NUMBERS = "".join(f"{i * 7919 % 104729} {i * i}\n" for i in range(20000)).encode()


def config(**train: Any) -> PrepareConfig:
    return PrepareConfig(output="unused", train=SplitConfig(**train))


def chunks(path: Path, target_bytes: int = 1 << 20) -> list[Chunk]:
    return list(read_chunks(RawText("train", ("en",), (path,)), target_bytes))


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """An empty directory to be in, and a function that makes files in it."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text("x\n")

    return make


def names(texts: list[RawText]) -> list[tuple[str, ...]]:
    return [tuple(map(str, text.paths)) for text in texts]


def test_files_are_sorted_within_a_pattern_and_patterns_keep_their_order(corpus: Callable[..., None]) -> None:
    corpus("b/2.en", "b/1.en", "b/1.de", "a/x1.en", "a/x22.en", "a/[old].en")
    found = find_texts(config(mono={"en": ["b/*.en", "a/x?.en", "a/[old].en"]}))
    assert names(found) == [("b/1.en",), ("b/2.en",), ("a/x1.en",), ("a/[old].en",)]


def test_pairs_match_by_what_the_wildcards_stand_for(corpus: Callable[..., None]) -> None:
    corpus("en/open.en", "de/open.de", "en/a.en", "de/a.de")
    found = find_texts(config(pairs={"de-en": ["{lang}/*.{lang}"]}))
    assert names(found) == [("de/a.de", "en/a.en"), ("de/open.de", "en/open.en")]
    assert {(text.pair, text.languages) for text in found} == {("de-en", ("de", "en"))}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/part-*.en", ["p/part-2.en", "p/part-10.en"]),
        ("p/[a-c].en", ["p/a.en"]),
        ("p/[!a]*[0-9].en", ["p/part-2.en", "p/part-10.en"]),
        ("p/[^p]*.en", ["p/a.en"]),
        ("{q/s,p/[ab]}.en", ["q/s.en", "p/a.en"]),
        ("{q/s,p/part-{10,2}}.en", ["q/s.en", "p/part-10.en", "p/part-2.en"]),
        ("**/*.en", ["p/a.en", "p/part-2.en", "p/part-10.en", "q/in/b.en", "q/s.en", "y.en"]),
        ("q/**/b.en", ["q/in/b.en"]),
        ("q/**", ["q/in/b.en", "q/s.en", "q/s.fr", "q/{x,y}.fr", "q/a[1].fr", "q/a1.fr"]),
        ("q/a[1].fr", ["q/a[1].fr"]),
        ("q/{x,y}.fr", ["q/{x,y}.fr"]),
        ("[d]/*.fr", ["[d]/x.fr"]),
        ("q/[].fr", []),
        ("p/[z-a].en", []),
        ("q/{s,none}.en", []),
    ],
)
def test_patterns_are_those_of_a_shell(corpus: Callable[..., None], pattern: str, expected: list[str]) -> None:
    corpus("p/part-10.en", "p/part-2.en", "p/a.en", "p/.hidden.en", "q/s.en", "q/in/b.en", ".git/x.en", "y.en")
    corpus("q/s.fr", "q/a[1].fr", "q/a1.fr", "q/{x,y}.fr", "[d]/x.fr", "d/y.fr")
    Path("q/link").symlink_to("../q")
    settings = config(mono={"en": [pattern]})
    if expected:
        assert sorted(names(find_texts(settings))) == sorted((name,) for name in expected)
        if "**" not in pattern:
            assert names(find_texts(settings)) == [(name,) for name in expected]
    else:
        with pytest.raises(DataError, match=r"no file matches (q/\[\]\.fr|q/none\.en|p/\[z-a\]\.en)"):
            find_texts(settings)


def test_pairs_match_in_any_depth(corpus: Callable[..., None]) -> None:
    corpus("en/x/a.en", "en/x/y/a.en", "en/a.en", "de/x/a.de", "de/x/y/a.de", "de/a.de")
    found = find_texts(config(pairs={"de-en": ["{lang}/**/[a-c].{lang}"]}))
    assert names(found) == [("de/a.de", "en/a.en"), ("de/x/a.de", "en/x/a.en"), ("de/x/y/a.de", "en/x/y/a.en")]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"mono": {"en": ["a.en", "*.fr"]}}, r"train\.mono\.en: no file matches \*\.fr"),
        ({"pairs": {"de-en": ["{lang}.none"]}}, r"train\.pairs\.de-en: no file matches de\.none"),
        ({"pairs": {"de-en": ["?.{lang}"]}}, r"train\.pairs\.de-en: b\.en has no counterpart"),
        ({"pairs": {"de-en": ["a.en"]}}, r"train\.pairs\.de-en: a\.en must contain \{lang\}"),
    ],
)
def test_patterns_that_cannot_be_right(corpus: Callable[..., None], train: dict[str, Any], message: str) -> None:
    corpus("a.en", "a.de", "b.en")
    with pytest.raises(DataError, match=message):
        find_texts(config(**train))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_every_compression_reads_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"numbers{suffix}"
    path.write_bytes(COMPRESS[suffix](NUMBERS))
    read = chunks(path, target_bytes=50_000)
    assert len(read) == len(NUMBERS) // 50_000 + 1
    assert b"".join(line + b"\n" for chunk in read for line in chunk.lines[0]) == NUMBERS


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])
@pytest.mark.parametrize("damage", [lambda c: c[:-20], lambda c: c[: len(c) // 2], lambda c: b"\x00\xfe" + c[2:]])
def test_damaged_files_are_an_error(tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"numbers{suffix}"
    path.write_bytes(damage(COMPRESS[suffix](NUMBERS)))
    with pytest.raises(DataError, match=f"numbers{suffix}: cannot be read to its end"):
        chunks(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.en: cannot read the text"):
        chunks(tmp_path / "gone.en")


def test_only_newline_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "odd.en"
    path.write_bytes("one\u2028still\u0085one\x0b\x0c\x1c\r\n\ntwo\rtwo\nlast".encode())
    (chunk,) = chunks(path)
    lines = [line.decode() for line in chunk.lines[0]]
    assert lines == ["one\u2028still\u0085one\x0b\x0c\x1c", "", "two\rtwo", "last"]


def test_lines_of_any_length_are_read_with_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.en"
    path.write_bytes(b"short\n" + b"x" * 5_000_000 + b"\nnext\n" + b"y" * 2_000_000)
    read = [line for chunk in read_chunks(RawText("train", ("en",), (path,)), 100, 1000) for line in chunk.lines[0]]
    assert read == [b"short", b"x" * 1001, b"next", b"y" * 1001]


def test_chunks_know_the_numbers_of_their_lines_and_their_size(tmp_path: Path) -> None:
    path = tmp_path / "numbers.en"
    path.write_bytes(NUMBERS)
    read = chunks(path, target_bytes=50_000)
    lines = NUMBERS.split(b"\n")
    numbered = [pair for chunk in read for pair in zip(chunk.numbers[0], chunk.lines[0])]
    assert numbered == list(enumerate(lines[:-1], 1))
    assert all(chunk.size == sum(len(line) + 1 for line in chunk.lines[0]) >= 50_000 for chunk in read[:-1])


@pytest.mark.parametrize("target", [1, 10, 1000])
def test_unequal_pairs_name_the_first_line_without_a_partner(tmp_path: Path, target: int) -> None:
    paths = (tmp_path / "x.de", tmp_path / "x.en")
    paths[0].write_text("1\n2\n3\n4\n5\n")
    paths[1].write_text("1\n2\n3\n")
    text, read = RawText("valid", ("de", "en"), paths), []
    with pytest.raises(
        UnequalLengths, match=r"valid\.pairs\.de-en: .*x\.en has 3 lines, .*x\.de has 5; .*x\.de:4 is"
    ) as e:
        read += read_chunks(text, target)
    assert e.value.surplus == 2


def test_a_double_slash_finds_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "x.en").write_text("A cat.\n", encoding="utf-8")
    config = PrepareConfig(output="out", train=SplitConfig(mono={"en": [f"{tmp_path}//*.en"]}))
    assert [text.paths for text in find_texts(config)] == [(tmp_path / "x.en",)]


def test_the_parent_of_a_link_is_that_of_its_target(tmp_path: Path) -> None:
    for name in ("x.en", "far/x.en"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("A cat.\n", encoding="utf-8")
    (tmp_path / "far/near").mkdir()
    (tmp_path / "link").symlink_to("far/near")
    config = PrepareConfig(output="out", train=SplitConfig(mono={"en": [f"{tmp_path}/./link/../*.en"]}))
    assert [text.paths[0].resolve() for text in find_texts(config)] == [tmp_path / "far/x.en"]
