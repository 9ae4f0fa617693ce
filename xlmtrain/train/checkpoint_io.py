"""One checkpoint on disk: complete or absent, verified before it is read, not deleted while it is read.

A directory with ``model.safetensors``, ``optimizer.safetensors``, ``state.json`` and ``manifest.json``, which has the
SHA-256 of the other files. It is written under a temporary name, synced to the disk, then renamed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xlmtrain.errors import CheckpointError
from xlmtrain.runtime.atomic_io import read_json, sha256_of, sync_file, write_json
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.output_paths import holds_only

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
FILES = (MODEL, OPTIMIZER, STATE, MANIFEST, f".{STATE}.tmp", f".{MANIFEST}.tmp")
"""All that may be in the directory of a checkpoint."""
Tensors = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """A checkpoint in memory: the tensors of model and optimizer by name, and the state."""

    path: Path
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]


def write_checkpoint(path: Path, model: Tensors, optimizer: Tensors, state: dict[str, Any]) -> None:
    """Write the directory ``path``. An existing checkpoint there stays complete until it is replaced.

    Raises CheckpointError if it cannot be written; then no part of it is left.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        _fill(temporary, model, optimizer, state)
        _put_in_place(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        need = sum(t.numel() * t.element_size() for tensors in (model, optimizer) for t in tensors.values())
        raise CheckpointError(
            f"{path}: not written ({error}); it needs {need:,} bytes, {_free(path)} are free"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(directory: Path, model: Tensors, optimizer: Tensors, state: dict[str, Any]) -> None:
    failpoint("save-open")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, tensors in ((MODEL, model), (OPTIMIZER, optimizer)):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, directory / name)
        failpoint("save-write")
    write_json(directory / STATE, state)
    failpoint("save-sync")
    files = sorted(directory.iterdir())
    for file in files:
        shutil.copymode(directory / STATE, file)  # safetensors lets nobody else read what it writes
        sync_file(file)
    sums = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files}
    write_json(directory / MANIFEST, sums)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``; an existing checkpoint there has a temporary name meanwhile."""
    replaced = replaced_name(path)
    failpoint("save-rename")
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(path, replaced)
    os.replace(temporary, path)
    failpoint("save-renamed")
    for directory in (path.parent, path.parent.parent):  # the second, as the first may be new
        sync_file(directory)
    shutil.rmtree(replaced, ignore_errors=True)


def replaced_name(path: Path) -> Path:
    """Return the name of the old checkpoint while a new one replaces it; after a kill it may be the only one."""
    return path.with_name(f".{path.name}.replaced")


def _free(path: Path) -> str:
    existing = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f"{shutil.disk_usage(existing).free:,}"


def read_checkpoint(path: Path, optimizer: bool = True) -> Checkpoint:
    """Read a checkpoint after checking every file's size and SHA-256 against its manifest.

    ``optimizer``: read its tensors too, twice the size of the model and needed only to train. Raises CheckpointError
    that names the first missing or different file.
    """
    with _being_read(path):
        _check(path, (MODEL, *([OPTIMIZER] if optimizer else []), STATE))
        return Checkpoint(
            path,
            _load(path / MODEL),
            _load(path / OPTIMIZER) if optimizer else {},
            read_json(path / STATE),
        )


def _load(file: Path) -> Tensors:
    try:
        return load_file(file)
    except SafetensorError as error:  # the manifest fits, but somebody wrote both
        raise CheckpointError(f"{file}: not a safetensors file ({error})") from error


def verify_checkpoint(path: Path) -> None:
    """Raise CheckpointError as :func:`read_checkpoint`, without reading the tensors into memory."""
    with _being_read(path):
        _check(path, (MODEL, OPTIMIZER, STATE))


def _check(path: Path, names: tuple[str, ...]) -> None:
    manifest = read_json(path / MANIFEST)
    for name in names:
        entry, file = manifest.get(name), path / name
        if not isinstance(entry, dict) or not file.is_file():
            raise CheckpointError(f"{file}: missing")
        if file.stat().st_size != entry.get("bytes"):
            raise CheckpointError(f"{file}: {file.stat().st_size} bytes, the manifest says {entry.get('bytes')}")
        if sha256_of(file) != entry.get("sha256"):
            raise CheckpointError(f"{file}: its SHA-256 is not the manifest's")


@contextmanager
def _being_read(path: Path) -> Iterator[None]:
    """Block :func:`remove_checkpoint`, where the storage supports locks."""
    try:
        with (path / MANIFEST).open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(f"{path}: is being deleted") from None
            except OSError:
                pass  # storage without locks
            yield
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: not readable ({error.strerror or error})") from error


def remove_checkpoint(path: Path) -> bool:
    """Delete a checkpoint. Returns False, and leaves it, if it is being read.

    It is renamed first, so a kill during the deletion leaves no incomplete checkpoint.
    """
    with suppress(FileNotFoundError), (path / MANIFEST).open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # storage without locks
        return _delete(path)
    return _delete(path)  # without a manifest nobody can read it


def _delete(path: Path) -> bool:
    if not holds_only(path, FILES):
        log.warning("%s: not deleted, as there are files in it that no checkpoint has", path)
        return False
    doomed = path.with_name(f".{path.name}.deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(path, doomed)
    failpoint("prune")
    shutil.rmtree(doomed)
    return True
