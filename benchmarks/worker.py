"""Process in which one system trains: its messages, its clock, and the batches between two messages."""

from __future__ import annotations

import importlib
import time
import traceback
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn

from benchmarks.shuffled_pairs import shuffled_steps
from benchmarks.workloads import SYSTEMS, Workload, settings
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader, StepBatches
from xlmtrain.interop.warm_start import initialize_weights
from xlmtrain.model.translation_model import build_model


@dataclass(frozen=True)
class RunRequest:
    """Train ``warmup`` steps without a clock, then ``steps`` that are measured. None instead ends the process."""

    warmup: int
    steps: int


@dataclass(frozen=True)
class SystemInfo:
    """Facts that must be equal for all systems: parameters, checksum of the first batch, its loss without dropout."""

    parameters: int
    batch_checksum: int
    first_loss: float


@dataclass(frozen=True)
class RunResult:
    """Measurements of one request. ``tokens``: without padding. ``losses``: mean per target, of each step.

    A sentence of back-translation counts twice, whatever the length of the source that is made for it.
    """

    seconds: float
    tokens: float
    targets: float
    losses: list[float]
    peak_mb: float


class System(Protocol):
    """A training program under test. Built from the settings, the initial weights and the device.

    For back-translation it translates the sources of a batch before it computes the loss.
    """

    model: nn.Module

    def loss(self, batch: Batch) -> float:
        """Return the mean loss per target of a batch on the device, in fp32."""
        ...

    def train(self, feed: BatchFeed) -> None:
        """Take one optimizer step per batch until the feed is finished."""
        ...


class _Step(NamedTuple):
    """Size of a step: tokens without padding, targets of each objective."""

    tokens: float
    targets: list[float]


class BatchFeed:
    """Iterator over global batches that is also the worker's side of the messages.

    A system takes one optimizer step for each batch and then calls :meth:`step_done`, which sends the result of a
    finished request and blocks until the next one. A system may fetch one batch ahead, as transformers' Trainer does.
    """

    def __init__(self, connection: Connection, steps: Iterator[StepBatches], device: torch.device) -> None:
        self.finished = False
        self._connection, self._steps, self._device = connection, steps, device
        self._pending: deque[_Step] = deque()
        self._receive()

    def __iter__(self) -> Iterator[StepBatches]:
        while not self.finished:
            data = next(self._steps)
            self._pending.append(_Step(data.tokens, data.targets))
            yield data

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
        message: RunRequest | None = None
        with suppress(EOFError):  # the runner was ended
            message = self._connection.recv()
        if message is None:
            self.finished = True
            return
        self._request = message
        self._steps_left = message.warmup + message.steps
        self._start_clock()

    def _start_clock(self) -> None:
        self._trained: list[tuple[_Step, torch.Tensor]] = []
        self._start = clock(self._device)

    def _result(self) -> RunResult:
        return RunResult(
            seconds=clock(self._device) - self._start,
            tokens=sum(step.tokens for step, _ in self._trained),
            targets=sum(sum(step.targets) for step, _ in self._trained),
            losses=[float(loss) for _, loss in self._trained],
            peak_mb=_peak_megabytes(self._device),
        )


def clock(device: torch.device) -> float:
    """Return CPU-seconds of all threads of this process, or the time at which the GPU has finished its work.

    On shared CPU cores the wall clock also counts the other programs.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _peak_megabytes(device: torch.device) -> float:
    """Return the most memory this process has held: reserved by PyTorch on a GPU, resident in RAM otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e6
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


def serve(connection: Connection, name: str, workload: Workload, data: Path, device: torch.device) -> None:
    """Send the system's info, then train on request. An error is sent as text, so that the others continue."""
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        system, loader = make_system(name, workload, data, device)
        connection.send(system_info(system, loader, device))
        system.train(BatchFeed(connection, training_steps(name, workload, data, loader), device))
    except Exception as error:
        traceback.print_exc()
        with suppress(OSError):  # the runner may have ended
            connection.send(f"{type(error).__name__}: {error}")


def training_steps(name: str, workload: Workload, data: Path, loader: Loader) -> Iterator[StepBatches]:
    """Yield the batches that a system trains on: those of ``loader``, or pairs in random order."""
    if SYSTEMS[name].shuffled:
        return shuffled_steps(settings(workload, data, SYSTEMS[name].precision), Dataset(data))
    return loader.steps(0, 10**9, loader.sampler.initial_state())


def make_system(
    name: str, workload: Workload, data: Path, device: torch.device, dropout: float | None = None
) -> tuple[System, Loader]:
    """Return a system with the initial weights that all have, and the loader of its batches.

    ``dropout``: None for the workload's.
    """
    spec = SYSTEMS[name]
    config = settings(workload, data, spec.precision, spec.compiled)
    if dropout is not None:
        config.model.dropout = config.model.attention_dropout = dropout
    dataset = Dataset(data)
    torch.manual_seed(0)
    weights = build_model(config.model, config.data, len(dataset.vocab), len(dataset.languages))
    initialize_weights(config.init, config.model, weights, dataset)
    # Imported by name, so that no process holds the libraries of another system in memory.
    system: System = getattr(importlib.import_module(spec.module), spec.class_name)(config, weights, device)
    return system, Loader(config, dataset)


def system_info(system: System, loader: Loader, device: torch.device) -> SystemInfo:
    """Return what must be equal for all systems; the model is moved to ``device``."""
    (batch,) = loader.make(0, loader.sampler.initial_state()).batches
    system.model.to(device).eval()
    with torch.no_grad():
        loss = system.loss(batch.to(device))
    system.model.train()
    return SystemInfo(
        parameters=sum(weight.numel() for weight in system.model.parameters() if weight.requires_grad),
        batch_checksum=zlib.crc32(batch.tokens.numpy().tobytes() + batch.targets.numpy().tobytes()),
        first_loss=loss,
    )
