"""Time, peak memory and the fastest matrix product of the device that a system trains on."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import torch
from torch.utils.benchmark import Timer


def seconds(device: torch.device) -> float:
    """Read the clock: CPU-seconds of all threads of this process, or the time at which the GPU has finished its work.

    On shared CPU cores the wall clock also counts the other programs.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def peak_megabytes(device: torch.device) -> float:
    """Return the most memory this process has held: reserved by PyTorch on a GPU, resident in RAM otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e6
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("/proc/self/status without VmHWM")


def matmul_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOP per second of the fastest of several large matrix products, the ceiling for training."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timer = Timer("torch.mm(a, b)", globals={"torch": torch, "a": a, "b": b}, timer=partial(seconds, device))
    return 2 * size**3 / min(timer.blocked_autorange(min_run_time=1.0).times)
