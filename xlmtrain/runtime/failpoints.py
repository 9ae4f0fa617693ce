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
opened), resume, read (of prepared data, from the start on), step (before it), generate (before each micro-batch of
back-translation), loss (of a micro-batch, ``failpoint_value``), evaluate (before each batch), snapshot, save-open,
save-write (between the files), save-sync, save-rename, save-renamed, save-best, prune (during a deletion), metrics
(before a record is written).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from typing import Any, NamedTuple

import torch

_SIGNALS = {name: getattr(signal, f"SIG{name.upper()}") for name in ("kill", "stop", "term", "int", "usr1")}
_ERRORS = {name: getattr(errno, name.upper()) for name in ("enospc", "eio", "erofs", "estale", "edquot")}
_FACTORS = {"nan": float("nan"), "large": 1000.0}


class _Fault(NamedTuple):
    point: str
    first: int
    last: float
    action: str
    seconds: float


_armed: list[_Fault] | None = None
_reached: Counter[str] = Counter()


def arm(text: str | None, rank: int) -> None:
    """Set the faults of this process from ``text`` (None or empty: no faults), and reset the counters."""
    global _armed
    _armed = []
    for part in filter(None, (text or "").split(",")):
        point, times, wanted, action = part.split(":")
        first, dash, last = times.partition("-")
        action, _, seconds = action.partition("=")
        if action not in {*_SIGNALS, *_ERRORS, *_FACTORS, "raise", "oom", "sleep"}:
            raise ValueError(f"XLMT_FAULT: no action {action!r}")
        if wanted in ("*", str(rank)):
            end = float(last or "inf") if dash else float(first)
            _armed.append(_Fault(point, int(first), end, action, float(seconds or 0)))
    _reached.clear()


def failpoint(point: str) -> None:
    """Mark that this process has reached ``point``, and cause a fault that is due."""
    failpoint_value(point, 0.0)


def failpoint_value(point: str, value: Any) -> Any:
    """Do as :func:`failpoint`, and return ``value``, multiplied by NaN or 1000 if such a fault is due."""
    for fault in _due(point):
        _strike(fault)
        value = value * _FACTORS.get(fault.action, 1.0)
    return value


def _due(point: str) -> list[_Fault]:
    if _armed is None:
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
        arm(None if again else os.environ.get("XLMT_FAULT"), int(os.environ.get("RANK", 0)))
    if not _armed:
        return []
    _reached[point] += 1
    return [fault for fault in _armed if fault.point == point and fault.first <= _reached[point] <= fault.last]


def _strike(fault: _Fault) -> None:
    if fault.action in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[fault.action])
    elif fault.action in _ERRORS:
        raise OSError(_ERRORS[fault.action], os.strerror(_ERRORS[fault.action]))
    elif fault.action == "raise":
        raise RuntimeError(f"a fault on purpose: {fault.point}")
    elif fault.action == "oom":
        raise torch.OutOfMemoryError("Tried to allocate a fault on purpose. More details follow from torch.")
    elif fault.action == "sleep":
        time.sleep(fault.seconds)
