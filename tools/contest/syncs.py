"""How often a step makes the host wait for the GPU."""

from __future__ import annotations

import re
import warnings
from contextlib import ExitStack
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

_WAITS = re.compile(r"cuda(StreamSynchronize|DeviceSynchronize|EventSynchronize|Memcpy)(_v\d+)?")
_RANGE = "steps that are watched"
_WARNING = "synchronizing CUDA operation"


class SyncWatch:
    """Counts from :meth:`start` to :meth:`stop`, in two ways.

    ``profiled``: calls that wait, in the profiler's record of the CUDA runtime, of all threads. ``warned``: operations
    that ``torch.cuda.set_sync_debug_mode`` warns of. Both are None without a GPU, the first too where the profiler sees
    no call of the runtime at all.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._stack = ExitStack()

    def start(self) -> None:
        """The device must have nothing outstanding."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
        self._profile = self._stack.enter_context(profile(activities=activities))
        self._warnings = self._stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        if self._cuda:
            torch.cuda.set_sync_debug_mode("warn")
        self._range = record_function(_RANGE)
        self._range.__enter__()

    def stop(self) -> dict[str, Any]:
        """What was counted; call it before waiting for the device."""
        self._range.__exit__(None, None, None)
        if self._cuda:
            torch.cuda.set_sync_debug_mode("default")
        warned = sum(_WARNING in str(warning.message) for warning in self._warnings)
        self._stack.close()
        events = self._profile.events() or []
        # The range is shown once on the host, and once more on the GPU's own time line.
        watched = min((event.time_range for event in events if event.name == _RANGE), key=lambda r: r.start)
        inside = [
            event.name
            for event in events
            if watched.start <= event.time_range.start and event.time_range.end <= watched.end
        ]
        seen = any(name.startswith("cudaLaunch") for name in inside)
        return {
            "profiled": sum(_WAITS.fullmatch(name) is not None for name in inside) if seen else None,
            "warned": warned if self._cuda else None,
        }
