"""Messages between the runner and its workers, and the batches that a worker trains on between two messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

import torch
from torch import nn

from benchmarks.clock import peak_megabytes, seconds
from xlmtrain.data.batch import Batch
from xlmtrain.data.loader import GlobalBatchShard


@dataclass(frozen=True)
class RunRequest:
    """Train ``warmup`` steps without a clock, then ``steps`` that are measured."""

    warmup: int
    steps: int


@dataclass(frozen=True)
class Shutdown:
    """Train no more."""


@dataclass(frozen=True)
class SystemInfo:
    """Facts that must be equal for all systems: parameters, checksum of the first batch, its loss without dropout."""

    parameters: int
    batch_checksum: int
    first_loss: float


@dataclass(frozen=True)
class RunResult:
    """Measurements of one request.

    ``seconds``: on the clock of ``clock.py``. ``tokens``: without padding. ``losses``: mean per target, of each step.
    """

    seconds: float
    tokens: float
    targets: float
    losses: list[float]
    peak_mb: float


@dataclass(frozen=True)
class Failure:
    """Reason why a system stopped."""

    reason: str


class BatchFeed:
    """Iterator over global batches that is also the worker's side of the protocol.

    A system takes one optimizer step for each batch and then calls :meth:`step_done`, which sends the result of a
    finished request and blocks until the next one. A system may fetch one batch ahead, as transformers' Trainer does.
    """

    def __init__(self, connection: Connection, steps: Iterator[GlobalBatchShard], device: torch.device) -> None:
        self.finished = False
        self._connection, self._steps, self._device = connection, steps, device
        self._pending: deque[GlobalBatchShard] = deque()
        self._receive()

    def __iter__(self) -> Iterator[GlobalBatchShard]:
        while not self.finished:
            self._pending.append(next(self._steps))
            yield self._pending[-1]

    def step_done(self, loss: torch.Tensor) -> None:
        """Count a step. ``loss``: scalar on the device, mean per target; read only when the request is finished."""
        self._trained.append((self._pending.popleft(), loss))
        self._steps_left -= 1
        if self._steps_left == self._request.steps:
            self._start_clock()
        if self._steps_left == 0:
            self._connection.send(self._result())
            if self._device.type == "cuda":
                torch.cuda.empty_cache()  # the other systems need the memory
            self._receive()

    def _receive(self) -> None:
        message = self._connection.recv()
        if isinstance(message, Shutdown):
            self.finished = True
            return
        self._request: RunRequest = message
        self._steps_left = message.warmup + message.steps
        self._start_clock()

    def _start_clock(self) -> None:
        self._trained: list[tuple[GlobalBatchShard, torch.Tensor]] = []
        self._start = seconds(self._device)

    def _result(self) -> RunResult:
        return RunResult(
            seconds=seconds(self._device) - self._start,
            tokens=sum(data.tokens for data, _ in self._trained),
            targets=sum(sum(data.targets) for data, _ in self._trained),
            losses=[float(loss) for _, loss in self._trained],
            peak_mb=peak_megabytes(self._device),
        )


class System(Protocol):
    """A training program under test. Built from the settings, the initial weights and the device."""

    model: nn.Module

    def loss(self, batch: Batch) -> float:
        """Return the mean loss per target of a batch on the device, in fp32."""
        ...

    def train(self, feed: BatchFeed) -> None:
        """Take one optimizer step per batch until the feed is finished."""
        ...
