"""Numbers read from a file: as an array's, and what the storage does not give is tried again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xlmtrain.data import disk_array
from xlmtrain.data.disk_array import DiskArray
from xlmtrain.errors import DataError
from xlmtrain.runtime import failpoints

NUMBERS = np.arange(1000, 1100, dtype="<i4")


@pytest.fixture
def array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DiskArray]:
    monkeypatch.setattr(disk_array, "RETRY_DELAYS", (0.0, 0.0))
    NUMBERS.tofile(tmp_path / "numbers")
    yield DiskArray(tmp_path / "numbers", NUMBERS.dtype)
    failpoints.arm(None, 0)


def test_indices_and_slices_are_those_of_an_array(array: DiskArray) -> None:
    assert len(array) == 100
    assert [array[0], array[99], array[-1], array[-100]] == [1000, 1099, 1099, 1000]
    for some in (slice(None), slice(3, 7), slice(-5, None), slice(90, 200), slice(7, 3), slice(100, None)):
        assert np.array_equal(array[some], NUMBERS[some])
        assert array[some].dtype == NUMBERS.dtype
    for outside in (100, -101):
        with pytest.raises(IndexError):
            array[outside]
    assert array.gather_spans([5, 0, 0, 99], [7, 0, 1, 100]).tolist() == [1005, 1006, 1000, 1099]


def test_two_errors_are_survived_and_the_third_is_reported(array: DiskArray) -> None:
    failpoints.arm("read:1-2:0:eio", 0)
    assert array[5] == 1005
    failpoints.arm("read:1-3:0:estale", 0)
    with pytest.raises(DataError, match=r"numbers: Stale file handle, three times; fix the storage"):
        array[5:7]
    assert array[5] == 1005


def test_what_comes_in_parts_is_put_together(array: DiskArray, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: read(file, min(size, 7), at))
    assert np.array_equal(array[10:90], NUMBERS[10:90])
    assert array.gather_spans([3, 50], [9, 51]).tolist() == [*range(1003, 1009), 1050]


def test_a_file_that_was_cut_is_an_error_where_it_ends(array: DiskArray) -> None:
    os.truncate(array.path, 200)
    assert array[49] == 1049
    with pytest.raises(DataError, match="it ends before byte 204, three times"):
        array[50]


def test_a_file_that_is_gone_is_read_on_but_not_opened(array: DiskArray) -> None:
    array.path.unlink()
    assert np.array_equal(array[:], NUMBERS)
    with pytest.raises(DataError, match="numbers: cannot be opened: No such file"):
        DiskArray(array.path, NUMBERS.dtype)
