"""Counts what goes over the wire in steps of training: run in a network namespace of its own, where nothing else goes.

    unshare --net python wire.py DATA PROCESSES VARIANTS       VARIANTS: JSON, a list of key path -> value

Prints JSON, for each variant: bytes of one step over all processes, reductions that one process takes part in, its
micro-batches, parameters, and entries of the vocabulary.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.support.tiny import run_processes, tiny_config
from xlmtrain.config.train import Precision, ReduceDtype
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.parallel import parallelize
from xlmtrain.train.step import TrainStep

STEPS = 4
VOCAB = 6000
"""Entries of the vocabulary, most of which do not occur, so that the embeddings are half of the gradients."""


def bring_up_loopback() -> None:
    """A new namespace's loopback device is down."""
    SIOCGIFFLAGS, SIOCSIFFLAGS, UP = 0x8913, 0x8914, 1
    with socket.socket() as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | UP))


def received() -> int:
    """Bytes that went over the loopback device."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def measure(distributed: Distributed, data: Path, variants: list[dict[str, Any]]) -> list[dict[str, float]]:
    """All variants, one after the other."""
    return [steps(distributed, data, changes) for changes in variants]


def steps(distributed: Distributed, data: Path, changes: dict[str, Any]) -> dict[str, float]:
    """Some steps on this process."""
    config = tiny_config("run", data, changes)
    dataset = Dataset(data)
    loader = Loader(config, dataset, distributed.rank, distributed.world_size)
    torch.manual_seed(0)
    model = LanguageModel(config.model, VOCAB, 2)
    optimizer = make_optimizer(config.optim, model, distributed.device)
    config.train.reduce_dtype = ReduceDtype(config.train.reduce_dtype)  # the settings came as JSON
    parallel = parallelize(model, config.train, Precision(config.train.precision), distributed)
    train_step = TrainStep(config, parallel, optimizer, Precision(config.train.precision), distributed)
    step_data = loader.make(0, loader.sampler.initial_state())
    train_step(step_data, [1.0, 1.0, 1.0])
    dist.barrier()
    before = received()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(STEPS):
            train_step(step_data, [1.0, 1.0, 1.0])
    dist.barrier()
    reductions = sum(event.count for event in profile.key_averages() if event.key == "gloo:all_reduce")
    return {
        "bytes": (received() - before) / STEPS,
        "reductions": reductions / STEPS,
        "micro_batches": len(step_data.batches),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": VOCAB,
    }


if __name__ == "__main__":
    bring_up_loopback()
    with tempfile.TemporaryDirectory() as directory:
        results = run_processes(int(sys.argv[2]), measure, Path(directory), Path(sys.argv[1]), json.loads(sys.argv[3]))
    print(json.dumps(results[0]))
