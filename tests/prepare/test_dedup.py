"""Lines that are there twice, by comparing digests a range at a time."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from xlmtrain.prepare import dedup
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.dedup import collect_held_out, find_duplicates, is_held_out, read_duplicates
from xlmtrain.prepare.token_shards import read_digests, write_tokenized


def write_shard(work: ArtifactStore, key: str, **sides: list[str]) -> None:
    """Write tokenized lines; a word is a token."""
    directory = work.path("tokenize", key)
    directory.mkdir(parents=True, exist_ok=True)
    for language, lines in sides.items():
        words = ["\n", *sorted({word for line in lines for word in line.split()})]
        numbers = [number for line in lines for number in [*map(words.index, line.split()), 0]]
        write_tokenized(directory, language, words, np.array(numbers, np.int32))


@pytest.mark.parametrize("at_once", [1, 10, 1 << 22])
def test_all_but_the_first_of_equal_lines_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(dedup, "DIGESTS_PER_RANGE", at_once)
    rng = random.Random(3)
    work = ArtifactStore(tmp_path)
    shards = ["a", "b", "c", "d"]
    seen: set[str] = set()
    expected: list[list[int]] = []
    for shard in shards:
        lines = [" ".join(rng.choices("xyz", k=rng.choice([1, 2, 3]))) for _ in range(0 if shard == "c" else 30)]
        write_shard(work, shard, de=lines)
        again = [i for i, line in enumerate(lines) if line in seen or line in lines[:i]]
        seen.update(lines)
        expected.append(again)
    find_duplicates(work, tmp_path, shards, ["de"], 120)
    assert [read_duplicates(tmp_path, shard).tolist() for shard in shards] == expected
    assert sum(map(len, expected)) > 30


def test_pairs_are_the_same_if_both_sides_are(tmp_path: Path) -> None:
    work = ArtifactStore(tmp_path)
    german, english = ["ja", "ja", "nein", "ja", "a", "b"], ["yes", "sure", "no", "yes", "b", "a"]
    write_shard(work, "a", de=german, en=english)
    find_duplicates(work, tmp_path, ["a"], ["de", "en"], 6)
    assert read_duplicates(tmp_path, "a").tolist() == [3]


def test_held_out_lines_are_known_by_language(tmp_path: Path) -> None:
    work = ArtifactStore(tmp_path)
    write_shard(work, "a", de=["eins zwei", "zwei"])
    write_shard(work, "b", de=["drei"], en=["three"])
    collect_held_out(work, tmp_path, ["de", "en", "fr"], [["a", ["de"]], ["b", ["de", "en"]]])
    write_shard(work, "c", de=["three", "drei", "vier", "zwei eins", "zwei", "eins zwei"])
    digests = read_digests(work.path("tokenize", "c"), "de")
    assert is_held_out(tmp_path, "de", digests).tolist() == [False, True, False, False, True, True]
    assert is_held_out(tmp_path, "en", digests).tolist() == [True, False, False, False, False, False]
    assert not is_held_out(tmp_path, "fr", digests).any()
