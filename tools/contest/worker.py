"""A process in which one contender trains: who that is, and what he says of himself before the first turn."""

from __future__ import annotations

import importlib
import time
import traceback
import zlib
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from contest.clock import Clock, CpuClock, clock_of
from contest.shapes import SHAPES, settings
from contest.turns import Turns
from xlmtrain.config.schema import Precision
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.objective import LanguageModel


@dataclass(frozen=True)
class Contender:
    """Who trains, in the module ``loop``, in which precision, and whether compiled by torch."""

    loop: str
    precision: Precision
    compiled: bool


_PRECISIONS = {
    "ours": (Precision.fp32, Precision.bf16, Precision.fp16),
    "hf": (Precision.fp32, Precision.bf16),
    "hf-trainer": (Precision.fp32, Precision.bf16),
    "ancestor": (Precision.fp32, Precision.bf16),
}
CONTENDERS = {
    f"{loop}-{precision.value}{'-compiled' if compiled else ''}": Contender(loop, precision, compiled)
    for loop, precisions in _PRECISIONS.items()
    for precision in precisions
    for compiled in ((False,) if loop == "ancestor" else (False, True))
}
_LOADS = 20


@dataclass(frozen=True)
class Failure:
    """Why a contender trains no more."""

    reason: str


class Trains(Protocol):
    """``Loop`` in the modules of _PRECISIONS: made of the settings, the first weights and the device."""

    model: nn.Module

    def loss(self, batch: Batch) -> float:
        """The mean loss per target of a batch on the device, in fp32."""
        ...

    def train(self, turns: Turns) -> None:
        """Train as long as there are turns."""
        ...


@runtime_checkable
class Saves(Protocol):
    """One whose checkpoints are measured as well."""

    def saving(self, saves: int) -> dict[str, Any]:
        """What a checkpoint costs, from so many of them."""
        ...


def serve(connection: Connection, name: str, shape: str, data: Path, device: torch.device) -> None:
    """When asked to, say what this contender is and computes; then take turns until there are no more."""
    try:
        _serve(connection, CONTENDERS[name], shape, data, device)
    except Exception as error:  # the others go on
        traceback.print_exc()
        with suppress(OSError):  # nobody may be there any more
            connection.send(Failure(f"{type(error).__name__}: {error}"))


def _serve(connection: Connection, contender: Contender, shape: str, data: Path, device: torch.device) -> None:
    if device.type == "cpu":
        torch.set_num_threads(1)
    imports = CpuClock().peak_megabytes()
    config = settings(SHAPES[shape], data, contender.precision, contender.compiled)
    dataset = Dataset(data)
    loader = Loader(config, dataset)
    torch.manual_seed(0)
    weights = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
    # Nobody has the others' libraries in its memory.
    module = importlib.import_module(f"contest.{contender.loop.replace('-', '_')}")
    connection.recv()
    loop: Trains = module.Loop(config, weights, device)
    del weights
    clock = clock_of(device)
    connection.send({**_introduction(loop, loader, device, clock), "imports_mb": imports})
    turns = Turns(connection, loader.steps(0, 10**9, loader.sampler.initial_state()), device)
    loop.train(turns)
    saves = turns.end.saves
    connection.send({"checkpoint": loop.saving(saves)} if saves and isinstance(loop, Saves) else {})


def _introduction(loop: Trains, loader: Loader, device: torch.device, clock: Clock) -> dict[str, Any]:
    """What must be the same for all contenders, and what a batch costs."""
    cursors = loader.sampler.initial_state()
    begin = time.process_time()
    for step in range(_LOADS):
        cursors = loader.make(step, cursors).sampler_state
    load = (time.process_time() - begin) / _LOADS
    (batch,) = loader.make(0, loader.sampler.initial_state()).batches
    loop.model.to(device).eval()
    with torch.no_grad():
        loss = loop.loss(batch.to(device))
    loop.model.train()
    clock.release()
    return {
        "parameters": sum(parameter.numel() for parameter in loop.model.parameters()),
        "batch": zlib.crc32(batch.tokens.numpy().tobytes() + batch.targets.numpy().tobytes()),
        "first_loss": loss,
        "load_cpu": load,
        "unit": clock.unit,
    }
