"""What this machine has, as far as training depends on it."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True)
class Gpu:
    """``capability``: CUDA's, (8, 0) for an A100; ``memory``: bytes."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class Machine:
    """``cores``: that this process may use, ``threads``: that torch computes with. ``flags``: what the processor can
    do. ``memory``, ``shared_memory``: bytes in all. ``kernels``: the GPUs that this torch was built for, ``sm_80`` and
    so on. ``load``: processes that wanted to compute in the last minute."""

    cores: int
    threads: int
    flags: frozenset[str]
    memory: int
    shared_memory: int
    load: float = 0.0
    gpus: list[Gpu] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)

    @property
    def fast_bf16(self) -> bool:
        """Whether the processor multiplies bf16 itself; others have to take it apart."""
        return bool(self.flags & {"avx512_bf16", "amx_bf16", "bf16"})


def this_machine() -> Machine:
    """Look at the machine that this process runs on."""
    gpus = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        gpus.append(Gpu(about.name, (about.major, about.minor), about.total_memory))
    shared = Path("/dev/shm")
    return Machine(
        cores=_cores(),
        threads=torch.get_num_threads(),
        flags=_flags(),
        memory=_memory(),
        shared_memory=shutil.disk_usage(shared).total if shared.is_dir() else 0,
        load=os.getloadavg()[0],
        gpus=gpus,
        kernels=torch.cuda.get_arch_list() if gpus else [],
    )


def _cores() -> int:
    """As many as the process is bound to, or fewer if its container gets less time than that."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(min(bound, int(quota) // int(period)), 1) if quota.isdigit() and period.strip().isdigit() else bound


def _memory() -> int:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(whole, int(limit)) if limit.isdigit() else whole


def _flags() -> frozenset[str]:
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return frozenset(match[1].split() if match else ())


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
