"""Systems that train in turn, each in a process of its own, on the same batches from the same initial weights."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.worker import RunRequest, RunResult, SystemInfo, serve
from benchmarks.workloads import Suite

MIN_ROUNDS = 3
"""Fewest rounds that give a median and a range."""
TIMEOUT_SECONDS = 1800.0
"""Longest time a system may take to answer; compiling takes longest."""
LOSS_TOLERANCE = {"cpu": 1e-5, "cuda": 1e-4}
"""Largest difference of the first losses. A GPU sums in another order."""


class SystemProcess:
    """Process of one system. ``failure``: the reason why it stopped, None while it works."""

    info: SystemInfo

    def __init__(self, name: str, suite: Suite, data: Path, device: torch.device) -> None:
        self.name = name
        self.results: list[RunResult] = []
        self.failure: str | None = None
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, suite.workload, data, device))
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        """Return the next answer, or None if there is none; ``failure`` then has the reason."""
        try:
            if not self._connection.poll(TIMEOUT_SECONDS):
                self.fail(f"no answer within {TIMEOUT_SECONDS:.0f} s")
                return None
            answer = self._connection.recv()
        except (EOFError, OSError):
            self.process.join(10)
            self.fail(f"process ended with exit code {self.process.exitcode}")
            return None
        if isinstance(answer, str):  # an error
            self.fail(answer)
            return None
        return answer

    def run(self, request: RunRequest) -> RunResult | None:
        """Train some steps and return their measurements, or None on failure."""
        with suppress(OSError):  # a process that ended may have sent the reason before
            self._connection.send(request)
        result: RunResult | None = self.receive()
        return result

    def fail(self, reason: str) -> None:
        """Record why this system stops, and end its process."""
        self.failure = reason
        print(f"{self.name} failed: {reason}", file=sys.stderr, flush=True)
        self.close()

    def close(self) -> None:
        """End the process; kill it if it does not stop on request."""
        with suppress(OSError):
            self._connection.send(None)
        self._connection.close()
        self.process.join(10)
        self.process.kill()
        self.process.join()


def run_suite(suite: Suite, data: Path, device: torch.device) -> list[SystemProcess]:
    """Train all systems of ``suite`` in turn and return them, also those that failed."""
    processes: list[SystemProcess] = []
    try:
        for name in suite.systems:  # one after the other: they share the cores
            processes.append(process := SystemProcess(name, suite, data, device))
            process.info = process.receive()
        reject_different_work(working(processes), LOSS_TOLERANCE[device.type])
        take_turns(processes, suite)
    finally:
        for process in processes:
            process.close()
    return processes


def working(processes: Sequence[SystemProcess]) -> list[SystemProcess]:
    """Return the processes that have not failed."""
    return [process for process in processes if process.failure is None]


def reject_different_work(processes: Sequence[SystemProcess], tolerance: float) -> None:
    """Fail each system whose parameters, first batch or first loss differ from those of the first system."""
    for process in processes[1:]:
        first, info = processes[0].info, process.info
        if (info.parameters, info.batch_checksum) != (first.parameters, first.batch_checksum) or not (
            abs(info.first_loss - first.first_loss) <= tolerance
        ):
            process.fail(f"not the same work as {processes[0].name}: {info} instead of {first}")


def take_turns(processes: Sequence[SystemProcess], suite: Suite) -> None:
    """Run every system once per round, in reverse order in every second round, and collect the results.

    What else the machine does then slows all systems alike.
    """
    for process in working(processes):
        process.run(RunRequest(0, suite.first_steps))
    for number in range(suite.rounds):
        for process in working(processes)[:: 1 if number % 2 == 0 else -1]:
            result = process.run(RunRequest(suite.warmup, suite.steps))
            if result is not None:
                process.results.append(result)
        print(f"round {number + 1} of {suite.rounds}", file=sys.stderr, flush=True)
