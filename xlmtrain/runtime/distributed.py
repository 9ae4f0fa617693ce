"""The processes that torchrun started, and what they tell each other.

Control messages (target counts, the wish to stop) go over gloo on the CPU even where gradients go over NCCL: they
must not wait for the GPU.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from xlmtrain.config.schema import Device
from xlmtrain.errors import ConfigError

_LET_GO = 0.2
"""Seconds for gloo's threads to let go of the last tensors that were sent. They need the interpreter's lock for that,
and torch, with the lock in hand, waits for them when it destroys the group: then the process never ends (torch 2.13).
"""


@dataclass(frozen=True)
class Distributed:
    """This process among all of them; a single process has no process group."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run directory."""
        return self.rank == 0

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the processes, in double precision."""
        if self.world_size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def all_reduce_array(self, array: np.ndarray) -> np.ndarray:
        """Element-wise sum of arrays of one shape, in their own precision."""
        if self.world_size == 1:
            return array
        tensor = torch.from_numpy(array.copy())
        dist.all_reduce(tensor)
        return tensor.numpy()

    def all_gather_text(self, text: str) -> list[str]:
        """The text of every process, by rank."""
        if self.world_size == 1:
            return [text]
        mine = np.frombuffer(text.encode(), dtype=np.uint8)
        sizes = [torch.empty(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(mine)]))
        longest = max(int(size) for size in sizes)
        every = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.world_size)]
        dist.all_gather(every, torch.from_numpy(np.pad(mine, (0, longest - len(mine)))))
        return [bytes(other[: int(size)].tolist()).decode() for other, size in zip(every, sizes)]

    def assert_same(self, values: Mapping[str, Any], what: str) -> None:
        """Raise ConfigError on every process, with each key that differs, if ``values`` are not the same on all."""
        every = [json.loads(text) for text in self.all_gather_text(json.dumps(values))]
        lines = []
        for key in sorted(set().union(*every)):
            ranks: dict[str, list[str]] = {}
            for rank, theirs in enumerate(every):
                ranks.setdefault(json.dumps(theirs.get(key)), []).append(str(rank))
            if len(ranks) > 1:
                having = "; ".join(f"{value} on rank {', '.join(some)}" for value, some in ranks.items())
                lines.append(f"{key}: {having}")
        if lines:
            raise ConfigError(f"{what}: not the same on all processes:\n  " + "\n  ".join(lines))

    def close(self) -> None:
        """Leave the process group."""
        if dist.is_initialized():
            time.sleep(_LET_GO)
            dist.destroy_process_group()


def initialize(wanted: Device, timeout: float = 600.0) -> Distributed:
    """Join the processes torchrun started, or stand alone.

    ``timeout``: seconds after which waiting for another process is an error.

    Raises ConfigError if the device asked for is not there.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    cuda = wanted is Device.cuda or (wanted is Device.auto and torch.cuda.is_available())
    if cuda:
        found = torch.cuda.device_count()
        if local_rank >= found:
            raise ConfigError(
                f"train.device={wanted.value}: process {local_rank} of this machine has no GPU, {found} found; "
                f"start torchrun with --nproc-per-node={max(found, 1)}, or set train.device=cpu"
            )
        torch.cuda.set_device(local_rank)
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if world_size > 1:
        limit = timedelta(seconds=timeout)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=_meeting_place(limit),
            rank=rank,
            world_size=world_size,
            timeout=limit,
        )
    return Distributed(rank, world_size, device)


def _meeting_place(limit: timedelta) -> dist.Store:
    """Where the processes find each other's addresses.

    Those that torchrun started before have left theirs in its store, which outlives them: one that is started again
    must not read them (it does in torch 2.13, and is refused the connection).
    """
    store = next(dist.rendezvous("env://", timeout=limit))[0]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return store
    return dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
