"""The processes that torchrun started, and what they tell each other.

Control messages (target counts, the wish to stop) go over gloo on the CPU even where gradients go over NCCL: they
must not wait for the GPU.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from xlmtrain.config.schema import Device
from xlmtrain.errors import ConfigError


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

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the processes, in double precision."""
        if self.world_size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def agree(self, value: str, what: str) -> None:
        """Raise ConfigError on every process if ``value`` is not the same on all of them."""
        if self.world_size == 1:
            return
        mine = torch.tensor(list(hashlib.sha256(value.encode()).digest()), dtype=torch.uint8)
        every = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(every, mine)
        others = [rank for rank, other in enumerate(every) if not torch.equal(other, every[0])]
        if others:
            raise ConfigError(f"{what}: rank {', '.join(map(str, others))} has others than rank 0")

    def close(self) -> None:
        """Leave the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()


def initialize(wanted: Device) -> Distributed:
    """Join the processes torchrun started, or stand alone.

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
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(minutes=10))
    return Distributed(rank, world_size, device)
