"""The device that a process computes on: an accelerator of torch's, or the CPU."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

ACCELERATORS = ("cuda", "xpu", "mps")
"""Types of devices beside the CPU, the preferred one first: NVIDIA or AMD (ROCm), Intel, Apple."""


def best_device() -> str:
    """Return the first of :data:`ACCELERATORS` that torch can use, otherwise ``cpu``."""
    return next((kind for kind in ACCELERATORS if torch.get_device_module(kind).is_available()), "cpu")


def device_name(device: torch.device) -> str:
    """Return the name of a GPU's model, otherwise the type of the device."""
    module = torch.get_device_module(device)
    return str(module.get_device_name(device)) if hasattr(module, "get_device_name") else device.type


def device_memory(device: torch.device) -> int:
    """Return the bytes of a GPU's memory, otherwise those of :func:`main_memory`."""
    module = torch.get_device_module(device)
    if hasattr(module, "get_device_properties"):
        return int(module.get_device_properties(device).total_memory)
    return main_memory()


def main_memory() -> int:
    """Return the bytes of this machine's memory; a container's limit counts as its size."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = re.match(r"\d+", system_file("/sys/fs/cgroup/memory.max"))
    return min(memory, int(limit[0])) if limit else memory


def usable_cores() -> int:
    """Return the number of cores that this process may use; a container's limit counts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = re.match(r"(\d+) (\d+)", system_file("/sys/fs/cgroup/cpu.max"))
    return max(min(cores, int(quota[1]) // int(quota[2])), 1) if quota else cores


def system_file(path: str) -> str:
    """Return the text of a file of the kernel's, empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def seed_device(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of ``device``.

    ``torch.manual_seed`` seeds every type of device, and takes 0.3 ms for those that are not in use.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def copies_asynchronously(device: torch.device) -> bool:
    """Return True if a GPU copies from and to pinned memory by itself. MPS shares its memory with the CPU."""
    return device.type not in ("cpu", "mps")


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the number format of long sums: float64, or float32 on MPS, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64
