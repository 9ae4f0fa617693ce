"""Contenders that train in turn, each in a process of its own, on the same batches from the same first weights."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contest.turns import End, Order, Turn
from contest.worker import Failure, serve

LEAST = 3
"""Rounds that figures can be made of."""
_SAME_LOSS = {"cpu": 1e-5, "cuda": 1e-4}
"""How far apart first losses may be; a GPU's sums are done in another order."""
_PATIENCE = {"cpu": 3600.0, "cuda": 300.0}
"""Seconds in which a contender has to answer; compiling is the longest, and where others use the cores, too."""


class Runner:
    """A contender's process. ``told``: what it said of itself. ``failure``: why it trains no more, if so."""

    def __init__(self, name: str, shape: str, data: Path, device: torch.device) -> None:
        self.name, self.shape = name, shape
        self.told: dict[str, Any] = {}
        self.turns: list[Turn] = []
        self.failure: str | None = None
        self._patience = _PATIENCE[device.type]
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, shape, data, device))
        self.process.start()
        theirs.close()

    @property
    def label(self) -> str:
        """Contender and shape."""
        return f"{self.name}@{self.shape}"

    def ask(self, message: Any) -> Any:
        """The answer to ``message``; None if there is none, and :attr:`failure` says why."""
        try:
            with suppress(OSError):  # it may have ended already, and have said why
                self._line.send(message)
            if not self._line.poll(self._patience):
                self.fail(f"no answer within {self._patience:.0f} s")
                return None
            answer = self._line.recv()
        except (EOFError, OSError):
            self.process.join(10)
            self.fail(f"its process ended with exit code {self.process.exitcode}")
            return None
        if isinstance(answer, Failure):
            self.fail(answer.reason)
            return None
        return answer

    def fail(self, reason: str) -> None:
        """It trains no more."""
        self.failure = reason
        self.end()
        print(f"{self.label} FAILED: {reason}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """End its process, whatever it does."""
        self._line.close()
        self.process.kill()
        self.process.join()


@dataclass(frozen=True)
class Plan:
    """So many ``rounds`` of a turn each, of ``steps`` steps after ``lead`` that do not count.

    ``warm_up``: steps before the first round. ``watched``: steps after the last one, watched for waiting. ``saves``:
    checkpoints then. ``until``: nobody warms up after that, by time.monotonic, and no round but the first LEAST begins.
    """

    rounds: int
    steps: int
    lead: int = 0
    warm_up: int = 2
    watched: int = 0
    saves: int = 0
    until: float = float("inf")


def run_heat(entries: Sequence[tuple[str, str]], data: Path, device: torch.device, plan: Plan) -> list[Runner]:
    """Let them train, each a contender and a shape, and tell of all, those that failed too.

    They go forwards in one round, backwards in the next. Before the first one, all of a shape must have the same number
    of parameters, the same batch, and the same loss without dropout; who has not, fails.
    """
    everybody: list[Runner] = []
    try:
        for name, shape in entries:
            everybody.append(Runner(name, shape, data, device))
        for runner in everybody:  # one after the other: they share cores and memory
            runner.told = runner.ask("introduce yourself") or {}
        _check_same([runner for runner in everybody if not runner.failure], _SAME_LOSS[device.type])
        _take_turns(everybody, plan)
        for runner in _able(everybody):
            runner.told |= runner.ask(End(plan.saves)) or {}
    finally:
        for runner in everybody:
            runner.end()
    return everybody


def _able(runners: list[Runner]) -> list[Runner]:
    return [runner for runner in runners if not runner.failure]


def _check_same(runners: list[Runner], tolerance: float) -> None:
    first: dict[str, Runner] = {}
    for runner in runners:
        other = first.setdefault(runner.shape, runner)
        for key in ("parameters", "batch", "first_loss"):
            a, b = other.told[key], runner.told[key]
            if abs(a - b) > (tolerance if key == "first_loss" else 0) and not runner.failure:
                runner.fail(f"not the same work: {key} of {other.name} is {a}, of {runner.name} {b}")


def _take_turns(everybody: list[Runner], plan: Plan) -> None:
    for runner in _able(everybody):
        begun = time.monotonic()
        if begun > plan.until:
            runner.fail("no time was left")
            continue
        runner.ask(Order(0, plan.warm_up))
        runner.told["warm_up"] = time.monotonic() - begun
    for number in range(plan.rounds):
        if number >= LEAST and time.monotonic() > plan.until:
            break
        for runner in _able(everybody)[:: 1 if number % 2 == 0 else -1]:
            turn = runner.ask(Order(plan.lead, plan.steps))
            if turn is not None:
                runner.turns.append(turn)
        print(f"round {number + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    for runner in _able(everybody) if plan.watched else []:
        turn = runner.ask(Order(plan.lead, plan.watched, watch=True))
        if turn is not None:
            runner.told["syncs"] = {how: n if n is None else n / plan.watched for how, n in turn.syncs.items()}
