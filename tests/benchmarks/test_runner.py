"""The runner: systems train in turn, and one that fails does not cost the others their results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.runner import SystemProcess, reject_different_work, run_suite, take_turns, working
from benchmarks.worker import RunRequest, RunResult, SystemInfo
from benchmarks.workloads import Suite, Workload, write_synthetic_text
from tests.support.tiny import CPU

TINY = Workload(dim=32, layers=2, heads=2, vocab_size=300, rows=4, length=16)
RESULT = RunResult(seconds=1.0, tokens=64.0, targets=9.0, losses=[6.0], peak_mb=100.0)
INFO = SystemInfo(parameters=1000, batch_checksum=5, first_loss=6.0)


class FakeProcess(SystemProcess):
    """Stands in for a process. Notes its runs in ``log`` and fails at request number ``fails_at``."""

    def __init__(self, name: str, log: list[str], fails_at: int = -1, info: SystemInfo = INFO) -> None:
        self.name, self.log, self.info, self._left = name, log, info, fails_at
        self.results, self.failure = [], None

    def run(self, request: RunRequest) -> RunResult | None:
        self.log.append(f"{self.name}{request.warmup}+{request.steps}")
        self._left -= 1
        if self._left == 0:
            self.fail("out of memory")
            return None
        return RESULT

    def close(self) -> None:
        pass


def suite(*systems: str, rounds: int = 3) -> Suite:
    return Suite(TINY, systems, rounds=rounds, steps=2, warmup=1, first_steps=4)


def test_every_round_goes_the_other_way() -> None:
    log: list[str] = []
    processes = [FakeProcess(name, log) for name in "abc"]
    take_turns(processes, suite(rounds=3))
    rounds = [[entry[0] for entry in log[begin : begin + 3]] for begin in range(0, 12, 3)]
    assert rounds == [list("abc"), list("abc"), list("cba"), list("abc")]
    assert log[0] == "a0+4"  # the first steps count for nothing
    assert set(log[3:]) == {"a1+2", "b1+2", "c1+2"}
    assert [len(process.results) for process in processes] == [3, 3, 3]


def test_the_others_go_on_when_one_fails() -> None:
    log: list[str] = []
    good, bad, also_good = FakeProcess("a", log), FakeProcess("b", log, fails_at=3), FakeProcess("c", log)
    take_turns([good, bad, also_good], suite())
    assert [len(process.results) for process in (good, bad, also_good)] == [3, 1, 3]
    assert bad.failure == "out of memory"
    assert working([good, bad, also_good]) == [good, also_good]
    assert [entry[0] for entry in log].count("b") == 3


@pytest.mark.parametrize(
    ("info", "accepted"),
    [
        (SystemInfo(1000, 5, 6.000009), True),
        (SystemInfo(1000, 5, 6.00002), False),
        (SystemInfo(1000, 5, float("nan")), False),
        (SystemInfo(1001, 5, 6.0), False),
        (SystemInfo(1000, 6, 6.0), False),
    ],
)
def test_all_must_do_the_same_work(info: SystemInfo, accepted: bool) -> None:
    first, other = FakeProcess("a", []), FakeProcess("b", [], info=info)
    reject_different_work([first, other], 1e-5)
    assert first.failure is None
    assert (other.failure is None) == accepted


@pytest.mark.slow
def test_real_processes(tmp_path: Path) -> None:
    data = write_synthetic_text(tmp_path / "text", TINY.vocab_size, 8000)
    good, bad = run_suite(suite("ours-fp32", "unknown"), data, CPU)
    assert good.failure is None
    assert [len(result.losses) for result in good.results] == [2, 2, 2]
    assert good.process.exitcode == 0
    assert bad.failure == "KeyError: 'unknown'"
    assert bad.results == []


@pytest.mark.slow
def test_a_killed_process_is_a_failure(tmp_path: Path) -> None:
    process = SystemProcess("ours-fp32", suite(), tmp_path, CPU)
    process.process.kill()
    assert process.receive() is None
    assert process.failure == "process ended with exit code -9"
