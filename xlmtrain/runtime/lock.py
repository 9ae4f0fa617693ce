"""One run at a time in a directory.

A lock of the system's goes with its process, however that ends. Between machines it does not always hold: some network
file systems keep locks to one machine. So a run whose last sign of life, in its ``status.json``, came from another
machine is watched for a while: if none follows, it is over.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.runtime.watchdog import HEARTBEAT_SECONDS

log = logging.getLogger(__name__)

STALE = 3 * HEARTBEAT_SECONDS
"""Seconds without a sign of life after which a run on another machine is over."""


def lock_directory(directory: Path) -> TextIO:
    """Hold ``directory`` for this process; the lock goes with the returned file, or with the process.

    Raises ConfigError, with the holder's name, if another process holds it.
    """
    lock = (directory / ".lock").open("a", encoding="utf-8")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(directory) from None
        except OSError as error:
            log.warning("%s: the file system knows no locks (%s)", directory, error)
        _wait_for_silence(directory)
    except BaseException:
        lock.close()
        raise
    return lock


def _wait_for_silence(directory: Path) -> None:
    """Return when nobody on another machine is training here; the machines' clocks need not agree."""
    first = _holder(directory)
    if first.get("status") != "running" or first.get("host") == socket.gethostname():
        return
    log.info("%s: was in use by %s; seeing for %.0f s if it still is", directory, _name(first), STALE)
    end = time.monotonic() + STALE
    while time.monotonic() < end:
        time.sleep(1.0)
        now = _holder(directory)
        if now.get("status") != "running":
            return
        if now != first:
            raise _held(directory)
    log.info("%s: taken over", directory)


def _holder(directory: Path) -> dict[str, Any]:
    try:
        return read_json(directory / "status.json")
    except CheckpointError:  # none yet
        return {}


def _held(directory: Path) -> ConfigError:
    holder = _name(_holder(directory))
    return ConfigError(f"run={directory}: another process is training in this directory: {holder}")


def _name(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "it is just starting"
    try:
        silent = datetime.now(timezone.utc) - datetime.fromisoformat(holder["time"])
        heard = f"{max(silent.total_seconds(), 0):.0f} s ago"
    except (KeyError, TypeError, ValueError):
        heard = "at an unknown time"
    step = holder.get("step")
    stands = "just begun" if step is None else f"at step {step}"
    return f"process {holder['pid']} on {holder.get('host')}, {stands}, last heard of {heard}"
