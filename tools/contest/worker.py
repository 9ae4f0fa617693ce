"""A process in which one contender trains, a turn at a time, and what its turns cost."""

from __future__ import annotations

import importlib
import time
import zlib
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from contest.shapes import SHAPES, settings
from xlmtrain.config.schema import Precision
from xlmtrain.data.batch import Batch
from xlmtrain.data.corpus import Dataset
from xlmtrain.data.loader import Loader, StepData
from xlmtrain.objective import LanguageModel

LOOPS = ("ours", "hf", "ancestor")
CONTENDERS = {f"{loop}-{p.value}": (loop, p) for loop in LOOPS for p in (Precision.fp32, Precision.bf16)}
_LOADS = 20


class Trains(Protocol):
    """What there is in each of the modules LOOPS: one who trains, made of the settings and the first weights."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def loss(self, batch: Batch) -> float:
        """The mean loss per target of a batch, in fp32."""
        ...

    def step(self, data: StepData) -> float:
        """Train on one batch; its mean loss per target."""
        ...


@dataclass
class Turn:
    """Some optimizer steps with their batches: ``cpu`` and its parts, ``wall``, ``waited`` for batches, in seconds.

    ``other``: gradients cleared, learning rate set, batches made. Clipping is a part of ``backward``.
    """

    cpu: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0
    other: float = 0.0
    wall: float = 0.0
    waited: float = 0.0
    tokens: float = 0.0
    targets: float = 0.0
    loss: float = 0.0


class _Phases:
    """CPU-seconds between the marks that hooks of the model and of the optimizer set in a step."""

    def __init__(self, loop: Trains) -> None:
        self.turn = Turn()
        self._last = 0.0
        loop.model.register_forward_pre_hook(lambda *_: self.ends("other"))
        loop.model.register_forward_hook(lambda *_: self.ends("forward"))
        loop.optimizer.register_step_pre_hook(lambda *_: self.ends("backward"))
        loop.optimizer.register_step_post_hook(lambda *_: self.ends("optimizer"))

    def begins(self) -> None:
        """A turn begins."""
        self.turn, self._last = Turn(), time.process_time()

    def ends(self, phase: str) -> None:
        """``phase`` ends now."""
        now = time.process_time()
        setattr(self.turn, phase, getattr(self.turn, phase) + now - self._last)
        self._last = now


def serve(connection: Connection, contender: str, shape: str, data: Path) -> None:
    """Say what this contender is and computes, then take a turn for every number of steps that is received; 0 ends."""
    torch.set_num_threads(1)
    before = peak_megabytes()
    kind, precision = CONTENDERS[contender]
    config = settings(SHAPES[shape], data, precision)
    dataset = Dataset(data)
    loader = Loader(config, dataset)
    torch.manual_seed(0)
    weights = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
    # Nobody has the others' libraries in its memory.
    loop: Trains = importlib.import_module(f"contest.{kind}").Loop(config, weights)
    del weights
    connection.send(_introduction(loop, loader))
    phases = _Phases(loop)
    steps = loader.steps(0, 10**9, loader.sampler.start())
    while count := connection.recv():
        phases.begins()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            asked = time.perf_counter()
            step_data = next(steps)
            phases.turn.waited += time.perf_counter() - asked
            phases.turn.tokens += step_data.tokens
            phases.turn.targets += sum(step_data.targets)
            phases.turn.loss = loop.step(step_data)
        phases.ends("other")
        phases.turn.cpu, phases.turn.wall = time.process_time() - cpu, time.perf_counter() - wall
        connection.send(phases.turn)
    connection.send({"peak_mb": peak_megabytes(), "imports_mb": before})


def _introduction(loop: Trains, loader: Loader) -> dict[str, Any]:
    """What must be the same for all contenders, and what a batch costs."""
    cursors = loader.sampler.start()
    begin = time.process_time()
    for step in range(_LOADS):
        cursors = loader.make(step, cursors).cursors
    load = (time.process_time() - begin) / _LOADS
    (batch,) = loader.make(0, loader.sampler.start()).batches
    loop.model.eval()
    with torch.no_grad():
        loss = loop.loss(batch)
    loop.model.train()
    return {
        "parameters": sum(parameter.numel() for parameter in loop.model.parameters()),
        "batch": zlib.crc32(batch.tokens.numpy().tobytes() + batch.targets.numpy().tobytes()),
        "first_loss": loss,
        "load_cpu": load,
    }


def peak_megabytes() -> float:
    """The most memory that this process had resident so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("/proc/self/status without VmHWM")


def matmul_flops(dtype: torch.dtype) -> float:
    """What one thread makes of a large matrix product, FLOP per CPU-second: the best of some."""
    torch.set_num_threads(1)
    a, b = torch.randn(2048, 1024).to(dtype), torch.randn(1024, 4096).to(dtype)
    best = float("inf")
    for _ in range(6):
        begin = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - begin)
    return 2 * 2048 * 1024 * 4096 / best
