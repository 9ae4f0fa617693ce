"""Word counts on disk: exact sums whatever fits into memory, and shares of the languages."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from xlmtrain.prepare import word_counts as counts_module
from xlmtrain.prepare.word_counts import (
    balance_factors,
    merge_counts,
    read_counts,
    scaled,
    sum_sorted,
    truncate_counts,
    write_counts,
)


@pytest.mark.parametrize("in_memory", [1, 7, 1 << 19])
def test_sums_are_exact_whatever_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(counts_module, "IN_MEMORY", in_memory)
    rng = random.Random(5)
    total: Counter[str] = Counter()
    files = []
    for number in range(9):
        words = Counter("".join(rng.choices("aäß漢z@", k=rng.randrange(1, 4))) for _ in range(rng.randrange(60)))
        total += words
        files.append(tmp_path / f"{number}.zst")
        write_counts(files[-1], sorted(words.items()))
    (tmp_path / "scratch").mkdir()
    assert list(merge_counts(map(read_counts, files), tmp_path / "scratch")) == sorted(total.items())
    assert bool(list((tmp_path / "scratch").iterdir())) == (in_memory < 100)


def test_sorted_counts_are_summed() -> None:
    assert list(sum_sorted([[("a", 1), ("c", 2)], [("b", 5)], [("a", 3)]])) == [("a", 4), ("b", 5), ("c", 2)]
    assert list(sum_sorted([])) == []
    assert list(scaled([("a", 1), ("b", 10)], 2.5)) == [("a", 2), ("b", 25)]


def test_balancing_gives_shares_by_size_to_the_power_of_alpha() -> None:
    counted, all_of_it = {"en": 90, "de": 10, "fr": 0}, {"en": 1.0, "de": 1.0, "fr": 1.0}
    assert balance_factors(counted, all_of_it, 1.0) == {"en": 1.0, "de": 1.0}
    assert balance_factors(counted, all_of_it, 0.5) == {"en": 1.0, "de": 3.0}
    assert balance_factors(counted, all_of_it, 0.0) == {"en": 1.0, "de": 9.0}


def test_a_sample_has_the_shares_of_the_whole() -> None:
    """900 and 100 running words, of which 90 and 50 were counted: shares of 3 to 1 all the same."""
    factors = balance_factors({"en": 90, "de": 50}, {"en": 0.1, "de": 0.5}, 0.5)
    assert min(factors.values()) == 1.0
    assert 90 * factors["en"] == pytest.approx(3 * 50 * factors["de"])


def test_the_rarest_words_are_left_out_all_of_a_count_or_none(tmp_path: Path) -> None:
    words = [("a", 5), ("b", 1), ("c", 2), ("d", 1), ("e", 2), ("f", 9)]

    def kept(most: int) -> tuple[list[tuple[str, int]], int, int]:
        path, number, least = truncate_counts(words, most, tmp_path)
        return list(read_counts(path)), number, least

    assert kept(6) == (words, 6, 1)
    assert kept(5) == kept(4) == ([("a", 5), ("c", 2), ("e", 2), ("f", 9)], 4, 2)
    assert kept(3) == kept(2) == ([("a", 5), ("f", 9)], 2, 3)
    assert kept(1) == ([("f", 9)], 1, 6)
    path, number, least = truncate_counts([("x", 3), ("y", 3)], 1, tmp_path)
    assert (list(read_counts(path)), number, least) == ([("x", 3), ("y", 3)], 2, 3)
