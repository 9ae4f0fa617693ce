"""The shuffle that is a function is a permutation, and a good one."""

from __future__ import annotations

import numpy as np
import pytest

import xlmtrain.data.permutation
from xlmtrain.data.permutation import Permutation


def shuffled(size: int, seed: int = 0) -> np.ndarray:
    return Permutation(size, np.random.default_rng(seed))(np.arange(size))


def test_bijection_for_every_small_size() -> None:
    for size in range(1, 700):
        assert np.array_equal(np.sort(shuffled(size)), np.arange(size)), size


def test_bijection_around_powers_of_two_and_for_a_large_size() -> None:
    for size in (1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537, 300_001):
        assert np.array_equal(np.sort(shuffled(size)), np.arange(size)), size


def test_no_collisions_where_the_range_cannot_be_listed() -> None:
    size = 10**13 + 7
    index = np.unique(np.random.default_rng(5).integers(size, size=100_000))
    places = Permutation(size, np.random.default_rng(0))(index)
    assert len(np.unique(places)) == len(index)
    assert places.min() >= 0
    assert places.max() < size
    assert abs(places.mean() / size - 0.5) < 4 / np.sqrt(12 * len(index))


def test_one_at_a_time_is_the_same_as_all_at_once() -> None:
    one = [Permutation(77, np.random.default_rng(3))(np.array([i]))[0] for i in range(77)]
    assert np.array_equal(one, shuffled(77, 3))


@pytest.mark.parametrize("size", [1, 77, 5000])
def test_runs_are_the_same_in_any_order(size: int) -> None:
    """Around the end, too, and whether or not they were made together with the one before."""
    permutation, whole = Permutation(size, np.random.default_rng(3)), shuffled(size, 3)
    for begin in [*range(0, size, 9), *range(size - 1, -1, -max(1, size // 7))]:
        assert np.array_equal(permutation.run(begin, 9), whole[np.arange(begin, begin + 9) % size]), begin


def test_a_table_is_the_function_it_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    with_tables = shuffled(3000)
    monkeypatch.setattr(xlmtrain.data.permutation, "_TABLE_BITS", 0)
    assert np.array_equal(shuffled(3000), with_tables)


def test_another_key_is_another_order() -> None:
    assert not np.array_equal(shuffled(100, 0), shuffled(100, 1))


def test_every_item_goes_everywhere_equally_often() -> None:
    """Over 4000 keys each of 10 items is at each of 10 places about 400 times: 5 standard deviations are 95."""
    places = np.stack([shuffled(10, seed) for seed in range(4000)])
    for item in range(10):
        counts = np.bincount(places[:, item], minlength=10)
        assert abs(counts - 400).max() < 5 * np.sqrt(4000 * 0.1 * 0.9), counts


def test_neighbours_are_parted() -> None:
    places = shuffled(10_000)
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.05
    assert (np.abs(np.diff(places)) == 1).mean() < 0.002
