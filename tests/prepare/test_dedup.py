"""Lines that are there twice, by comparing digests a range at a time."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from xlmtrain.prepare import dedup
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.dedup import collect_held_out, find_duplicates, is_held_out, read_duplicates
from xlmtrain.prepare.shard_raw import NO_DIGEST, line_digest


def write_digests(work: ArtifactStore, part: str, shard: int, **sides: list[str]) -> None:
    directory = work.path("shard", part)
    directory.mkdir(parents=True, exist_ok=True)
    for language, lines in sides.items():
        digests = np.array([line_digest(line.encode()) for line in lines], np.uint64)
        digests.tofile(directory / f"{shard:05d}.{language}.digests")


@pytest.mark.parametrize("at_once", [1, 10, 1 << 22])
def test_all_but_the_first_of_equal_lines_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(dedup, "DIGESTS_PER_RANGE", at_once)
    rng = random.Random(3)
    work = ArtifactStore(tmp_path)
    shards = [("a", 0), ("a", 1), ("b", 0), ("c", 0)]
    seen: set[str] = set()
    expected: list[list[int]] = []
    for part, number in shards:
        lines = [rng.choice(["", " ", *map(str, range(40))]) for _ in range(rng.choice([0, 30]) if part == "c" else 30)]
        write_digests(work, part, number, de=lines)
        again = [i for i, line in enumerate(lines) if line.strip() and (line in seen or line in lines[:i])]
        seen.update(lines)
        expected.append(again)
    find_duplicates(work, tmp_path, [list(shard) for shard in shards], ["de"], 120)
    assert [read_duplicates(tmp_path, *shard).tolist() for shard in shards] == expected
    assert sum(map(len, expected)) > 30


def test_pairs_are_the_same_if_both_sides_are(tmp_path: Path) -> None:
    work = ArtifactStore(tmp_path)
    german, english = ["ja", "ja", "nein", "ja", "", "a", "b"], ["yes", "sure", "no", "yes", "yes", "b", "a"]
    write_digests(work, "a", 0, de=german, en=english)
    find_duplicates(work, tmp_path, [["a", 0]], ["de", "en"], 7)
    assert read_duplicates(tmp_path, "a", 0).tolist() == [3]


def test_held_out_lines_are_known_by_language(tmp_path: Path) -> None:
    work = ArtifactStore(tmp_path)
    write_digests(work, "a", 0, de=["eins", "", "zwei"])
    write_digests(work, "b", 0, de=["drei"], en=["three"])
    collect_held_out(work, tmp_path, ["de", "en", "fr"], [["a", 0, ["de"]], ["b", 0, ["de", "en"]]])
    lines = ["three", "drei", "vier", "", "zwei", " eins "]
    digests = np.array([line_digest(line.encode()) for line in lines], np.uint64)
    assert digests[3] == NO_DIGEST
    assert is_held_out(tmp_path, "de", digests).tolist() == [False, True, False, False, True, True]
    assert is_held_out(tmp_path, "en", digests).tolist() == [True, False, False, False, False, False]
    assert not is_held_out(tmp_path, "fr", digests).any()
