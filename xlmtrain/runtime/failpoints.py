"""Fail points: faults injected to test that a run survives them. Without ``XLMT_FAULT`` nothing happens.

``XLMT_FAULT=<point>:<n>:<rank>:<action>``, several of them separated by commas. The fault occurs when the process of
that rank (``*``: of every rank) reaches the point for the n-th time, or from the n-th time on (``3-``), or from the
n-th to the m-th time (``3-5``). A process that a launcher restarted has no faults. Actions:

kill, stop          the process gets SIGKILL, SIGSTOP
term, int, usr1     it gets that signal
raise, oom          RuntimeError, torch's OutOfMemoryError
enospc, eio, erofs, estale, edquot      OSError of that number
nan, large          ``failpoint_value`` gives NaN, or a thousand times the value
sleep=<seconds>     the process waits, interruptibly

Points, in the order of a run: start (all processes have met, nothing is built), open (the run directory is about to be
opened), resume, read (of prepared data, from the start on), step (before it), loss (of a micro-batch,
``failpoint_value``), evaluate (before each batch), snapshot, save-open, save-write (between the files), save-sync,
save-rename, save-renamed, save-best, prune (during a deletion), metrics (before a record is written).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

_SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "usr1": signal.SIGUSR1,
}
_ERRORS = {name: getattr(errno, name.upper()) for name in ("enospc", "eio", "erofs", "estale", "edquot")}
_FACTORS = {"nan": float("nan"), "large": 1000.0}


@dataclass(frozen=True)
class _Fault:
    point: str
    first: int
    last: float
    action: str
    seconds: float

    @classmethod
    def parse(cls, text: str) -> tuple[str, _Fault]:
        """Return the rank that gets the fault, and the fault."""
        point, times, rank, action = text.split(":")
        first, dash, last = times.partition("-")
        action, _, seconds = action.partition("=")
        if action not in {*_SIGNALS, *_ERRORS, *_FACTORS, "raise", "oom", "sleep"}:
            raise ValueError(f"XLMT_FAULT: no action {action!r}")
        end = float(last or "inf") if dash else float(first)
        return rank, cls(point, int(first), end, action, float(seconds or 0))

    def strike(self) -> None:
        """Cause the fault; NaN and large values are caused by ``failpoint_value``."""
        if self.action in _SIGNALS:
            os.kill(os.getpid(), _SIGNALS[self.action])
        elif self.action in _ERRORS:
            number = _ERRORS[self.action]
            raise OSError(number, os.strerror(number))
        elif self.action == "raise":
            raise RuntimeError(f"a fault on purpose: {self.point}")
        elif self.action == "oom":
            raise torch.OutOfMemoryError("Tried to allocate a fault on purpose. More details follow from torch.")
        elif self.action == "sleep":
            time.sleep(self.seconds)


_armed: list[_Fault] | None = None
_reached: Counter[str] = Counter()


def arm(text: str | None, rank: int) -> None:
    """Set the faults of this process from ``text`` (None or empty: no faults), and reset the counters."""
    global _armed
    faults = [_Fault.parse(part) for part in (text or "").split(",") if part]
    _armed = [fault for wanted, fault in faults if wanted in ("*", str(rank))]
    _reached.clear()


def failpoint(point: str) -> None:
    """Mark that this process has reached ``point``, and cause a fault that is due."""
    for fault in _due(point):
        fault.strike()


def failpoint_value(point: str, value: Any) -> Any:
    """Return ``value``, multiplied by NaN or 1000 if such a fault is due at ``point``."""
    for fault in _due(point):
        fault.strike()
        value = value * _FACTORS.get(fault.action, 1.0)
    return value


def _due(point: str) -> list[_Fault]:
    if _armed is None:
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
        arm(None if again else os.environ.get("XLMT_FAULT"), int(os.environ.get("RANK", 0)))
    if not _armed:
        return []
    _reached[point] += 1
    return [fault for fault in _armed or () if fault.point == point and fault.first <= _reached[point] <= fault.last]
