"""Raw files split into shards: every line arrives, or is counted with the reason why not."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmtrain.config.prepare import CleanConfig, OnError, PrepareConfig, SplitConfig
from xlmtrain.errors import DataError
from xlmtrain.prepare import shard_raw as shard_raw_module
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.raw_files import RawText, find_texts
from xlmtrain.prepare.shard_raw import line_digest, read_digests, shard_file, shard_raw, shard_task
from xlmtrain.text.text_files import open_bytes

DROP: dict[str, Any] = {"invalid_utf8": OnError.drop, "misaligned": OnError.drop}


class Sharder:
    """A directory of raw files, and the shards made of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def shard(self, shard_bytes: int = 1 << 24, **clean: Any) -> dict[str, Any]:
        """Shard ``x.de`` and ``x.en``, or ``x.de`` alone."""
        self.out = Path(self.directory / f"out-{len(list(self.directory.iterdir()))}")
        self.out.mkdir()
        languages = [language for language in ("de", "en") if (self.directory / f"x.{language}").exists()]
        train = {"de-en": [f"{self.directory}/x.{{lang}}"]} if len(languages) > 1 else {}
        mono = {} if train else {"de": [f"{self.directory}/x.de"]}
        config = PrepareConfig("out", SplitConfig(mono, train), clean=CleanConfig(**clean))
        (text,) = find_texts(config)
        arguments = {**shard_task(text, config).arguments, "shard_bytes": shard_bytes}
        return shard_raw(ArtifactStore(self.directory), self.out, **arguments)

    def write(self, **sides: list[bytes]) -> None:
        for language, lines in sides.items():
            (self.directory / f"x.{language}").write_bytes(b"".join(line + b"\n" for line in lines))

    def lines(self, shard: int, language: str) -> list[bytes]:
        with open_bytes(shard_file(self.out, shard, language)) as file:
            return file.read().split(b"\n")[:-1]


@pytest.fixture
def sharder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sharder:
    monkeypatch.setattr(shard_raw_module, "CHUNK_BYTES", 500)
    return Sharder(tmp_path)


def test_shards_hold_all_lines_in_order_with_a_digest_each(sharder: Sharder) -> None:
    sides = {language: [f"{language} {i} ".encode() * (i % 7) for i in range(1000)] for language in ("de", "en")}
    sharder.write(**sides)
    result = sharder.shard(shard_bytes=5000)
    assert len(result["shards"]) > 5
    assert all(5000 <= shard["bytes"] < 6000 for shard in result["shards"][:-1])
    for language, lines in sides.items():
        shards = [sharder.lines(number, language) for number in range(len(result["shards"]))]
        assert [len(shard) for shard in shards] == [shard["lines"] for shard in result["shards"]]
        assert list(itertools.chain(*shards)) == lines
        digests = np.concatenate([read_digests(sharder.out, number, language) for number in range(len(shards))])
        assert digests.tolist() == [line_digest(line) for line in lines]
    assert line_digest(b" a b\t") == line_digest(b"a b") != line_digest(b"a  b")
    assert line_digest(b" \r") == line_digest(b"") == 0


def malformed(rng: random.Random) -> tuple[str, bytes]:
    """A kind of damage, and a line that has it."""
    kinds: dict[str, bytes] = {
        "invalid_utf8": rng.choice([b"gr\xfc\xdfe", b"a\xed\xa0\x80b", b"\xff\xfe", b"cut \xc3", b"\xc0\xafx"]),
        "max_chars": rng.choice([b"x" * 2001, "ü".encode() * 3000, b"word " * 1000]),
        "": rng.choice(
            [
                *(b"nul \x00 byte", "\ufeffBOM".encode(), b"return\r", "a\u0085b\u2028c".encode(), b"t\ta\tb", b""),
                *(b"  ", "Mu\u0308ller".encode(), "ü".encode() * 2000, b"\x1b[0m"),
            ]
        ),
    }
    kind = rng.choice(list(kinds))
    return kind, kinds[kind]


def test_20000_malformed_lines_are_each_dropped_for_the_right_reason_or_kept(sharder: Sharder) -> None:
    rng = random.Random(32)
    injected: dict[str, int] = dict.fromkeys(["invalid_utf8", "max_chars", ""], 0)
    sides: dict[str, list[bytes]] = {"de": [], "en": []}
    expected: list[tuple[bytes, bytes]] = []
    for i in range(22_000):
        pair = [f"Satz {i} ist gut".encode(), f"sentence {i} is fine".encode()]
        if i % 11:
            kind, line = malformed(rng)
            injected[kind] += 1
            pair[rng.randrange(2)] = line
        if not i % 11 or not kind:
            expected.append((pair[0].removesuffix(b"\r"), pair[1].removesuffix(b"\r")))
        sides["de"].append(pair[0])
        sides["en"].append(pair[1])
    sharder.write(**sides)
    result = sharder.shard(max_chars=2000, **DROP)
    kept = injected.pop("")
    assert sum(injected.values()) + kept == 20_000
    assert result["dropped"] == injected
    assert result["lines"] == 22_000
    assert list(zip(sharder.lines(0, "de"), sharder.lines(0, "en"))) == expected


def test_a_line_without_end_does_not_fill_the_memory(sharder: Sharder) -> None:
    sharder.write(de=[b"kurz", b"x" * 40_000_000, b"auch kurz"])
    tracemalloc.start()
    result = sharder.shard(max_chars=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result["dropped"] == {"max_chars": 1}
    assert sharder.lines(0, "de") == [b"kurz", b"auch kurz"]
    assert peak < 10_000_000
    with pytest.raises(AssertionError):  # the limit is what bounds it
        assert sharder.shard(max_chars=0)["dropped"]


@pytest.mark.parametrize(
    ("before", "bad"),
    [
        ("a\nb\nc", b"\xfc"),  # Latin-1
        ("a\nb\nc", b"\xed\xa0\x80"),  # a surrogate
        ("a\n" * 2 + "ä" * (1 << 20) + "x", b"\xc3"),  # begins in one block, is found wrong in the next
    ],
)
def test_what_is_not_utf8_is_named_by_line(sharder: Sharder, before: str, bad: bytes) -> None:
    path = sharder.directory / "x.de"
    path.write_bytes(before.encode() + bad + b"\nd\n")
    with pytest.raises(DataError, match=r"x\.de:3: not UTF-8"):
        sharder.shard(max_chars=0)
    path.write_bytes(b"a\nlast " + b"\xc3")
    with pytest.raises(DataError, match=r"x\.de:2: not UTF-8.*clean\.invalid_utf8=drop"):
        sharder.shard()


def test_lines_without_a_partner(sharder: Sharder) -> None:
    sharder.write(de=[b"eins", b"zwei", b"drei"], en=[b"one"])
    with pytest.raises(DataError, match=r"x\.en has 1 lines, .*x\.de has 3; .*x\.de:2 is the first line without"):
        sharder.shard()
    result = sharder.shard(**DROP)
    assert (result["lines"], result["dropped"], sharder.lines(0, "de")) == (3, {"misaligned": 2}, [b"eins"])


def test_no_lines_make_no_shards(sharder: Sharder) -> None:
    sharder.write(de=[])
    assert sharder.shard() == {"shards": [], "lines": 0, "dropped": {}, "words": [{}], "segmented": 0}


def test_a_changed_file_is_another_task(tmp_path: Path) -> None:
    path = tmp_path / "x.de"
    path.write_bytes(b"eins\n")
    config = PrepareConfig("out", SplitConfig({"de": [str(path)]}))
    text = RawText("train", ("de",), (path,))
    before = shard_task(text, config).key
    assert shard_task(text, config).key == before
    path.write_bytes(b"zwei\n")
    assert shard_task(text, config).key != before
    config.shard_mb = 3
    other = shard_task(text, config).key
    config.clean.max_chars = 7
    assert len({before, other, shard_task(text, config).key}) == 3
