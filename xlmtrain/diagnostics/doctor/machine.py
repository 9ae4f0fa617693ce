"""The machine, as far as training depends on it."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True)
class InstalledGpu:
    """``capability``: CUDA's, (8, 0) for an A100; ``memory``: bytes."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class Machine:
    """``cores``: available to this process; ``threads``: of torch. ``flags``: features of the processor. ``memory``,
    ``shared_memory``: bytes in all. ``load``: processes ready to run, mean of the last minute. ``kernels``: GPU
    architectures that this torch was built for, like ``sm_80``."""

    cores: int
    threads: int
    flags: frozenset[str]
    memory: int
    shared_memory: int
    load: float = 0.0
    gpus: list[InstalledGpu] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)

    @property
    def fast_bf16(self) -> bool:
        """True if the processor has instructions for bf16; others emulate it."""
        return bool(self.flags & {"avx512_bf16", "amx_bf16", "bf16"})


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    shared = Path("/dev/shm")
    return Machine(
        cores=_cores(),
        threads=torch.get_num_threads(),
        flags=frozenset(flags[1].split() if flags else ()),
        memory=_memory(),
        shared_memory=shutil.disk_usage(shared).total if shared.is_dir() else 0,
        load=os.getloadavg()[0],
        gpus=[InstalledGpu(gpu.name, (gpu.major, gpu.minor), gpu.total_memory) for gpu in found],
        kernels=torch.cuda.get_arch_list() if found else [],
    )


def _cores() -> int:
    """Return the number of cores that the process is bound to, or its container's quota if that is less."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(min(bound, int(quota) // int(period)), 1) if quota.isdigit() and period.strip().isdigit() else bound


def _memory() -> int:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(installed, int(limit)) if limit.isdigit() else installed


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
