"""What a turn's cost is counted in: the CPU-seconds of this process, or the seconds of a GPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks points of the work, and tells the time between them once it has settled."""

    unit: str
    """What its seconds are called in a figure's name."""

    def mark(self) -> Any:
        """The point that has been reached."""
        ...

    def seconds(self, begin: Any, end: Any) -> float:
        """From one mark to another, settled."""
        ...

    def settle(self) -> None:
        """Wait until all that was begun is done."""
        ...

    def release(self) -> None:
        """Leave the memory that is not in use to the others."""
        ...

    def peak_megabytes(self) -> float:
        """The most memory that this process had so far, on the device that it computes with."""
        ...


class CpuClock:
    """CPU-seconds of all threads of this process: on shared cores the wall clock tells little."""

    unit = "cpu_second"

    def mark(self) -> float:
        """See :class:`Clock`."""
        return time.process_time()

    def seconds(self, begin: float, end: float) -> float:
        """See :class:`Clock`."""
        return end - begin

    def settle(self) -> None:
        """A CPU has nothing outstanding."""

    def release(self) -> None:
        """What a process gives back is its own affair, and part of its speed."""

    def peak_megabytes(self) -> float:
        """See :class:`Clock`."""
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise AssertionError("/proc/self/status without VmHWM")


class CudaClock:
    """Seconds of the GPU between two points of its stream. Time in which it waits for the host counts."""

    unit = "second"

    def mark(self) -> torch.cuda.Event:
        """See :class:`Clock`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """See :class:`Clock`."""
        return begin.elapsed_time(end) / 1e3

    def settle(self) -> None:
        """See :class:`Clock`."""
        torch.cuda.synchronize()

    def release(self) -> None:
        """Hand cached memory back, so that the next one's turn has room."""
        torch.cuda.empty_cache()

    def peak_megabytes(self) -> float:
        """What the allocator had reserved; CUDA's context, about 500 MB, is beside it."""
        return torch.cuda.max_memory_reserved() / 1e6


def clock_of(device: torch.device) -> Clock:
    """The clock that counts on ``device``."""
    return CudaClock() if device.type == "cuda" else CpuClock()


def matmul_flops(dtype: torch.dtype, device: torch.device, rows: int, inner: int, columns: int) -> float:
    """What ``device`` makes of a matrix product of this size, FLOP per second of its clock: the best of some."""
    clock = clock_of(device)
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(inner, columns, device=device).to(dtype)
    best, products = float("inf"), 10 if device.type == "cuda" else 1
    for _ in range(6):
        clock.settle()
        begin = clock.mark()
        for _ in range(products):
            torch.mm(a, b)
        end = clock.mark()
        clock.settle()
        best = min(best, clock.seconds(begin, end) / products)
    return 2 * rows * inner * columns / best
