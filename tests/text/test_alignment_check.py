"""Sides of a pair that do not belong together are noticed, where it begins, and good ones are left alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY
from xlmtrain.config.prepare import CleanConfig, OnError, PrepareConfig, SplitConfig
from xlmtrain.errors import DataError
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.raw_files import find_texts
from xlmtrain.prepare.shard_raw import shard_raw, shard_task
from xlmtrain.text.alignment_check import first_mismatch
from xlmtrain.text.langid import marker_words

SAMPLE = REPOSITORY / "data" / "sample"
LANGUAGES = ("de", "en")


@pytest.fixture(scope="module")
def pairs() -> tuple[list[bytes], list[bytes]]:
    """3,000 pairs of the sample corpus."""
    german, english = ((SAMPLE / f"train.{language}").read_bytes().split(b"\n")[:3000] for language in LANGUAGES)
    return german, english


def shard_pairs(directory: Path, sides: tuple[list[bytes], list[bytes]], mismatch: OnError = OnError.stop) -> dict:
    """Shard two files."""
    for language, lines in zip(LANGUAGES, sides):
        (directory / f"x.{language}").write_bytes(b"\n".join(lines) + b"\n")
    (directory / "out").mkdir(exist_ok=True)
    train = SplitConfig(pairs={"de-en": [f"{directory}/x.{{lang}}"]})
    config = PrepareConfig("out", train, clean=CleanConfig(misaligned=mismatch))
    return shard_raw(ArtifactStore(directory), directory / "out", **shard_task(find_texts(config)[0], config).arguments)


def test_good_pairs_pass(pairs: tuple[list[bytes], list[bytes]], tmp_path: Path) -> None:
    assert shard_pairs(tmp_path, pairs)["dropped"] == {}
    unlike = [random.Random(1).sample(side, len(side)) for side in pairs]  # no translations, but not shifted
    assert shard_pairs(tmp_path, (unlike[0], unlike[1]))["dropped"] == {}


def test_empty_lines_are_no_evidence(pairs: tuple[list[bytes], list[bytes]], tmp_path: Path) -> None:
    for seed in range(5):
        rng = random.Random(seed)
        sides = (list(pairs[0]), list(pairs[1]))
        for line in rng.sample(range(3000), 1500):
            sides[rng.randrange(2)][line] = b""
        assert shard_pairs(tmp_path, sides)["dropped"] == {}


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(("place", "lost"), [(0, 1), (500, 1), (1800, 2), (2500, 3)])
def test_a_lost_line_is_found_near_its_place(
    pairs: tuple[list[bytes], list[bytes]], tmp_path: Path, side: int, place: int, lost: int
) -> None:
    sides = (list(pairs[0]), list(pairs[1]))
    del sides[side][place : place + lost], sides[1 - side][-lost:]
    with pytest.raises(DataError, match=r"x\.de:\d+: from about this line on, its lines are") as caught:
        shard_pairs(tmp_path, sides)
    message = str(caught.value)
    assert f"are {lost} {'ahead of' if side == 0 else 'behind'}" in message
    line = int(message.partition("x.de:")[2].partition(":")[0])
    assert abs(line - (place + 1)) < 60
    dropped = shard_pairs(tmp_path, sides, OnError.drop)["dropped"]["misaligned"]
    assert abs(dropped - (3000 - lost - place)) < 250


def test_swapped_files_are_found(pairs: tuple[list[bytes], list[bytes]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.de:1: .* reads like en, .* swapped with .*x\.en; fix"):
        shard_pairs(tmp_path, (pairs[1], pairs[0]))
    assert shard_pairs(tmp_path, (pairs[1], pairs[0]), OnError.drop)["dropped"] == {"misaligned": 3000}


def test_few_lines_and_equal_lines_are_no_evidence() -> None:
    for lines in ([b"a"], [b"a", b"bb", b"ccc"], [b"same length"] * 5000):
        assert first_mismatch((lines, lines), LANGUAGES, [marker_words(lines)] * 2) is None


@pytest.mark.slow
def test_real_translations_pass(shared: Path, tmp_path: Path) -> None:
    for path in sorted((shared / "corpora" / "train").glob("*.de.xz")):
        pattern = str(path).replace(".de.", ".{lang}.")
        config = PrepareConfig("out", SplitConfig(pairs={"de-en": [pattern]}))
        (tmp_path / path.name).mkdir()
        arguments = shard_task(find_texts(config)[0], config).arguments
        assert shard_raw(ArtifactStore(tmp_path), tmp_path / path.name, **arguments)["dropped"] == {}
