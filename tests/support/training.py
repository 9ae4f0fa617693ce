"""Whole runs of training in a test: started, stopped, resumed, compared."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.support.tiny import ALONE
from xlmtrain.commands.train import train
from xlmtrain.config.schema import Config
from xlmtrain.data.loader import StepBatches
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import StopRequest
from xlmtrain.train.loop import Outcome, TrainingLoop

SECONDS = "progress/seconds"


class NoSignals(StopRequest):
    """A stop request that leaves the test process's signal handlers alone."""

    def __init__(self) -> None:
        self.signal = None


def train_on(distributed: Distributed, config: Config, stop_after: int = 10**6) -> Outcome:
    """One start of the program, on one of several processes; SIGTERM arrives in its ``stop_after``-th step."""
    logging.getLogger("xlmtrain").setLevel(logging.INFO)
    stop, done = NoSignals(), 0
    step = TrainingLoop._step

    def counted(loop: TrainingLoop, data: StepBatches) -> bool:
        nonlocal done
        done += 1
        if done == stop_after:
            stop.signal = signal.SIGTERM
        return step(loop, data)

    with mock.patch.object(TrainingLoop, "_step", counted):
        return train(config, distributed, stop)


def train_alone(config: Config, stop_after: int = 10**6) -> Outcome:
    """One start of the program."""
    return train_on(ALONE, config, stop_after)


class GradientRecorder(torch.optim.SGD):
    """Keeps the gradient it is to step with, and stays where it is."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.seen = [p.grad.clone() for group in self.param_groups for p in group["params"]]


def assert_same_weights(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> None:
    """The same names, types and numbers, to the last bit."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.dtype == b[name].dtype, name
        assert torch.equal(value, b[name]), name


def records(run: Path | str, *, timed: bool = False) -> list[dict[str, Any]]:
    """``metrics.jsonl``; without what depends on the clock and the machine unless ``timed``."""
    lines = (Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [
        {k: v for k, v in json.loads(line).items() if timed or not k.startswith(("speed/", "energy/", SECONDS))}
        for line in lines
    ]
    return [record for record in found if record.keys() != {"step"}]  # those of energy alone


def checkpoint(run: Path | str, step: int) -> Path:
    """The directory of a checkpoint."""
    return Path(run) / "checkpoints" / f"step-{step:08d}"


def state(run: Path | str, step: int) -> dict[str, Any]:
    """``state.json`` of a checkpoint, without the clock."""
    value = json.loads((checkpoint(run, step) / "state.json").read_text(encoding="utf-8"))
    del value["progress"]["seconds"], value["progress"]["energy"]
    return value


def assert_same_run(a: Path | str, b: Path | str, step: int) -> None:
    """Weights, optimizer state, state and every figure are the same, to the last bit."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (checkpoint(a, step) / name).read_bytes() == (checkpoint(b, step) / name).read_bytes(), name
    assert state(a, step) == state(b, step)
    assert records(a) == records(b)


def status(run: Path | str) -> dict[str, str]:
    """What ``status.json`` says, without who said it when."""
    found = json.loads((Path(run) / "status.json").read_text(encoding="utf-8"))
    return {key: found[key] for key in ("status", "reason")}
