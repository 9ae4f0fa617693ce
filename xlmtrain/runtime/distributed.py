"""The processes that torchrun started, and the collectives they use for control messages.

Control messages (target counts, stop requests) go over gloo on the CPU even where gradients go over NCCL: they must not
wait for the GPU.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from xlmtrain.config.train import Device
from xlmtrain.errors import ConfigError, DeviceOutOfMemory, PeerError, UserError
from xlmtrain.runtime.device import best_device
from xlmtrain.runtime.failpoints import failpoint

T = TypeVar("T")

_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}

_GLOO_DRAIN_SECONDS = 0.2
"""Wait before a gloo group is destroyed. Its threads need the interpreter's lock to release the last tensors they sent;
torch 2.13 holds that lock while it waits for them in the destructor, and then the process never ends."""


@dataclass(frozen=True)
class Distributed:
    """This process among all processes of the run. A single process has no process group.

    As a context it leaves the group at the end: with :meth:`close`, or with :meth:`abort` if an error passes through.
    """

    rank: int
    world_size: int
    device: torch.device
    lockstep: bool = False
    """True while a forward pass takes all processes, as the weights are sharded."""

    def __enter__(self) -> Distributed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close() if error is None else self.abort()

    @property
    def is_main(self) -> bool:
        """True on the process that writes the run directory."""
        return self.rank == 0

    @property
    def is_first_on_host(self) -> bool:
        """True on one process of each host."""
        return int(os.environ.get("LOCAL_RANK", 0)) == 0

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Return the element-wise sum over the processes, in double precision."""
        return self.all_reduce_array(np.array(values, dtype=np.float64)).tolist()

    def any(self, flag: bool) -> bool:
        """Return True on every process if ``flag`` is True on one of them."""
        return self.all_reduce_sum([float(flag)])[0] > 0

    def all_reduce_array(self, array: np.ndarray) -> np.ndarray:
        """Return the element-wise sum of arrays of one shape, in their own precision."""
        if self.world_size == 1:
            return array
        tensor = torch.from_numpy(array.copy())
        dist.all_reduce(tensor)
        return tensor.numpy()

    def all_gather_text(self, text: str) -> list[str]:
        """Return the text of every process, by rank."""
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
        """Raise ConfigError on every process if ``values`` differ between them; the message lists each such key."""
        every = [json.loads(text) for text in self.all_gather_text(json.dumps(values))]
        lines = []
        for key in sorted(set().union(*every)):
            ranks: dict[str, list[str]] = {}
            for rank, theirs in enumerate(every):
                ranks.setdefault(json.dumps(theirs.get(key)), []).append(str(rank))
            if len(ranks) > 1:
                lines.append(f"{key}: " + "; ".join(f"{value} on rank {', '.join(r)}" for value, r in ranks.items()))
        if lines:
            raise ConfigError(f"{what}: not the same on all processes:\n  " + "\n  ".join(lines))

    def run_on_all(self, function: Callable[[], T]) -> T:
        """Return ``function()``, which must not use collectives. If it fails on one process, raise on all of them.

        A process whose own call failed raises its error; the others raise PeerError with the failed process's exit
        code, or RuntimeError if the error was not a UserError, and name it.
        """
        result, own = None, None
        try:
            result = function()
        except Exception as error:
            own = error
        if self.world_size > 1 and self.any(own is not None):
            failures = [json.loads(text) for text in self.all_gather_text(json.dumps(_failure(own)))]
            rank, (exit_code, message) = next((r, found) for r, found in enumerate(failures) if found)
            if own is None and exit_code is None:
                raise RuntimeError(f"rank {rank} failed: {message}")
            if own is None:
                raise PeerError(f"rank {rank} failed: {message}", exit_code)
        if own is not None:
            raise own
        return result  # type: ignore[return-value]

    def in_step(self, items: Iterable[T], stop: Callable[[], bool]) -> Iterator[T | None]:
        """Yield ``items``, each for one forward pass, until ``stop()`` is True. May be used in :meth:`run_on_all`.

        With ``lockstep`` all processes get as many, None after their own last one. They stop together, and all raise if
        one cannot read its next item.
        """
        iterator = iter(items)
        while True:
            item = self.run_on_all(lambda: next(iterator, None)) if self.lockstep else next(iterator, None)
            more = item is not None
            if self.lockstep:
                more, stopping = map(bool, self.all_reduce_sum([float(more), float(stop())]))
            else:
                stopping = more and stop()
            if stopping or not more:
                return
            yield item

    def wait_for(self, job: Future[Any] | None, report_progress: Callable[[], None] = lambda: None) -> None:
        """Wait until the jobs of all processes are done; None: this process has none.

        The processes exchange every second that they still wait, so no time limit of a collective is reached.
        ``report_progress`` is called as often.
        """
        while self.any(job is not None and bool(wait([job], 1.0).not_done)):
            report_progress()

    def run_long_on_all(self, function: Callable[[], T], report_progress: Callable[[], None] = lambda: None) -> T:
        """Do as :meth:`run_on_all` for a function, run in a thread, that may take longer than a collective's limit."""
        with ThreadPoolExecutor(max_workers=1) as thread:
            job = thread.submit(function)
            self.wait_for(job, report_progress)
        return self.run_on_all(job.result)

    def close(self) -> None:
        """Leave the process group. Collective on GPUs: call it only when no process has failed."""
        if dist.is_initialized():
            time.sleep(_GLOO_DRAIN_SECONDS)
            dist.destroy_process_group()

    def abort(self) -> None:
        """Leave the process group after an error, without waiting for the other processes.

        Communicators of GPUs are aborted, as destroying them would wait for peers that still wait for this process.
        A group of gloo alone is destroyed: that involves no other process, and its peers see the closed connection.
        """
        if self.device.type == "cpu":
            self.close()
        elif dist.is_initialized():
            with suppress(Exception):  # the error that ends the process must stay the one that is reported
                distributed_c10d._abort_process_group()


def _failure(error: Exception | None) -> tuple[int | None, str] | None:
    """Return the exit code, None for other errors than a UserError, and the message."""
    if error is None:
        return None
    exit_code = DeviceOutOfMemory.exit_code if isinstance(error, torch.OutOfMemoryError) else None
    return (error.exit_code if isinstance(error, UserError) else exit_code), f"{type(error).__name__}: {error}"


def initialize(wanted: Device, timeout: float = 600.0) -> Distributed:
    """Join the processes that torchrun started; without torchrun, return a single process.

    ``timeout``: seconds after which a collective that waits for another process is an error. Raises ConfigError if the
    requested device is missing.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    kind = best_device() if wanted is Device.auto else wanted.value
    device = torch.device("cpu") if kind == "cpu" else torch.device(kind, local_rank)
    if kind != "cpu":
        found = torch.get_device_module(kind).device_count()
        if local_rank >= found:
            raise ConfigError(
                f"train.device={wanted.value}: process {local_rank} of this machine has no GPU, {found} found; "
                f"start torchrun with --nproc-per-node={max(found, 1)}, or set train.device=cpu"
            )
        if kind != "mps":
            torch.get_device_module(kind).set_device(local_rank)
        elif world_size > 1:
            raise ConfigError(f"train.device={wanted.value}: MPS takes one process; set train.device=cpu for more")
    if world_size > 1:
        limit = timedelta(seconds=timeout)
        dist.init_process_group(
            _BACKENDS[kind],
            store=_rendezvous_store(limit),
            rank=rank,
            world_size=world_size,
            timeout=limit,
            device_id=None if kind == "cpu" else device,
        )
    failpoint("start")
    return Distributed(rank, world_size, device)


def _rendezvous_store(limit: timedelta) -> dist.Store:
    """Return the store in which the processes find each other's addresses, with a prefix for each restart.

    The agent's store outlives the processes. A process that torchrun restarted must not read the addresses of those
    before it (in torch 2.13 it does, and its connections are refused).
    """
    store = next(dist.rendezvous("env://", timeout=limit))[0]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return store
    return dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
