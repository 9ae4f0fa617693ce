"""Files that are either whole or not there, and the run directory's lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any, TextIO

from xlmtrain.errors import CheckpointError, ConfigError


def sync_file(path: Path) -> None:
    """Wait until the file or directory ``path`` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` with ``value`` as JSON, atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8")
    sync_file(temporary)
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; raises CheckpointError if it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def lock_directory(directory: Path) -> TextIO:
    """Hold ``directory`` for this process; the lock goes with the returned file, or with the process.

    Raises ConfigError if another process holds it.
    """
    lock = (directory / ".lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ConfigError(f"run={directory}: another process is training in this directory") from None
    return lock
