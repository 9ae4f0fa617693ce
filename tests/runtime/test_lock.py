"""One run at a time in a directory: who holds it is named, and a dead holder is no hindrance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmtrain.errors import ConfigError
from xlmtrain.runtime import lock
from xlmtrain.runtime.atomic_io import write_json
from xlmtrain.runtime.lock import STALE, lock_directory

HOLDER = {
    "status": "running",
    "reason": "",
    "step": 40,
    "host": "another",
    "pid": 4711,
    "time": "2020-01-01T00:00:00.000+00:00",
}


class Clock:
    """Time that passes only by sleeping; ``each`` is called every second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: Callable[[], None] = lambda: None) -> None:
        self.now, self.each = 0.0, each
        monkeypatch.setattr(lock, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.each()


def held(directory: Path, **changes: Any) -> None:
    write_json(directory / "status.json", HOLDER | changes)


def test_the_holder_is_named(tmp_path: Path) -> None:
    with lock_directory(tmp_path):
        held(tmp_path, host="here")
        with pytest.raises(
            ConfigError,
            match=rf"run={tmp_path}: another process is training in this directory: process 4711 on here, at step 40, "
            r"last heard of \d+ s ago",
        ):
            lock_directory(tmp_path)
    held(tmp_path, status="done")
    lock_directory(tmp_path).close()


def test_a_dead_holder_on_this_machine_costs_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "another")
    held(tmp_path)
    lock_directory(tmp_path).close()
    assert clock.now == 0.0


@pytest.mark.parametrize("status", ["done", "preempted", "failed"])
def test_a_run_that_has_ended_elsewhere_costs_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    clock = Clock(monkeypatch)
    held(tmp_path, status=status)
    lock_directory(tmp_path).close()
    assert clock.now == 0.0


def test_a_silent_holder_on_another_machine_is_waited_for_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    held(tmp_path)
    lock_directory(tmp_path).close()
    assert clock.now == STALE


def test_a_living_holder_on_another_machine_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system gave the lock, as it keeps locks to one machine; the other's sign of life tells."""

    def beat() -> None:
        if clock.now == 10.0:
            held(tmp_path, time="2020-01-01T00:00:10.000+00:00", step=50)

    clock = Clock(monkeypatch, beat)
    held(tmp_path)
    with pytest.raises(ConfigError, match="process 4711 on another, at step 50"):
        lock_directory(tmp_path)
    assert clock.now == 10.0
