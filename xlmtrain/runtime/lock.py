"""Locks of files and directories, and that of a run directory: one process at a time.

The system releases a lock when its process ends, however that happens. Between machines a lock does not always hold, as
some network file systems keep locks per machine. So if the last heartbeat, in ``status.json``, came from another
machine, the directory is watched for a while; without a new heartbeat the other run is over.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, TextIO

from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.runtime.watchdog import HEARTBEAT_SECONDS

log = logging.getLogger(__name__)

STALE = 3 * HEARTBEAT_SECONDS
"""Seconds without a heartbeat after which a run on another machine is over."""


def try_lock(file: IO[Any], shared: bool = False) -> bool:
    """Lock an open file for this process until it is closed; return False if another process holds it.

    ``shared``: others may hold it as well, if shared. True also where the file system does not support locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("%s: the file system does not support locks (%s)", file.name, error)
    return True


def lock_directory(directory: Path) -> TextIO:
    """Lock ``directory`` for this process, until the returned file is closed or the process ends.

    Raises ConfigError that names the holder if another process holds it.
    """
    lock = (directory / ".lock").open("a", encoding="utf-8")
    try:
        if not try_lock(lock):
            raise _held(directory)
        _wait_for_silence(directory)
    except BaseException:
        lock.close()
        raise
    return lock


def _wait_for_silence(directory: Path) -> None:
    """Wait until no process on another machine uses the directory. The machines' clocks need not agree."""
    first = _holder(directory)
    if first.get("status") != "running" or first.get("host") == socket.gethostname():
        return
    log.info("%s: was in use by %s; waiting %.0f s for a sign that it still is", directory, _name(first), STALE)
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
    """Return the content of ``status.json``, empty before the first heartbeat."""
    try:
        return read_json(directory / "status.json")
    except CheckpointError:
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
    stands = "just begun" if holder.get("step") is None else f"at step {holder['step']}"
    return f"process {holder['pid']} on {holder.get('host')}, {stands}, last heard of {heard}"
