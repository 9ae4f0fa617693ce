"""Write files atomically: complete or absent. JSON and checksums of files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from xlmtrain.errors import CheckpointError, damage_as


def sync_file(path: Path) -> None:
    """Sync the file or directory ``path`` to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` with ``value`` as JSON, atomically, and sync it to the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8")
    sync_file(temporary)
    os.replace(temporary, path)
    sync_file(path.parent)


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``. Raises OSError, ValueError, or RecursionError if it is nested too deep."""
    value = json.loads(path.read_bytes())  # also with a byte-order mark
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``. Raises CheckpointError if it is missing or damaged."""
    with damage_as(CheckpointError, f"{path}: not readable"):
        return json_object(path)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        # Large blocks, as each read waits for the interpreter lock if other threads are busy.
        while block := stream.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
