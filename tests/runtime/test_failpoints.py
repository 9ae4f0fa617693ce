"""Faults strike when they are due, in the process they are meant for, and never unasked."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator

import pytest

from xlmtrain.runtime import failpoints
from xlmtrain.runtime.failpoints import failpoint, failpoint_value


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None, 0)


def outcomes(point: str, times: int) -> list[int | None]:
    """The number of the error at each of so many visits, None where there is none."""
    found: list[int | None] = []
    for _ in range(times):
        try:
            failpoint(point)
        except OSError as error:
            found.append(error.errno)
        else:
            found.append(None)
    return found


@pytest.mark.parametrize(
    ("times", "struck"), [("2", [1]), ("2-", [1, 2, 3, 4]), ("2-3", [1, 2])], ids=["once", "from then on", "in between"]
)
def test_at_the_times_given(times: str, struck: list[int]) -> None:
    failpoints.arm(f"save-open:{times}:0:enospc", rank=0)
    assert outcomes("elsewhere", 3) == [None] * 3
    assert outcomes("save-open", 5) == [errno.ENOSPC if i in struck else None for i in range(5)]


@pytest.mark.parametrize(("wanted", "rank", "struck"), [("1", 1, True), ("1", 0, False), ("*", 3, True)])
def test_on_the_rank_given(wanted: str, rank: int, struck: bool) -> None:
    failpoints.arm(f"step:1:{wanted}:raise", rank)
    if struck:
        with pytest.raises(RuntimeError, match="a fault on purpose: step"):
            failpoint("step")
    else:
        failpoint("step")


def test_values() -> None:
    failpoints.arm("loss:2:0:nan,loss:3:0:large", rank=0)
    found = [failpoint_value("loss", 2.0) for _ in range(4)]
    assert math.isnan(found.pop(1))
    assert found == [2.0, 2000.0, 2.0]


def test_the_environment_arms_the_first_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLMT_FAULT", "step:1:0:eio")
    for restarts, struck in (("0", [errno.EIO]), ("1", [None])):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        monkeypatch.setattr(failpoints, "_armed", None)
        assert outcomes("step", 1) == struck


def test_a_misspelt_action_is_an_error() -> None:
    with pytest.raises(ValueError, match="no action 'kil'"):
        failpoints.arm("step:1:0:kil", rank=0)
