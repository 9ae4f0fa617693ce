"""One checkpoint on disk: complete or absent, verified before it is read, not deleted while it is read.

A directory with ``model.safetensors``, ``optimizer.safetensors``, ``state.json`` and ``manifest.json``, which has the
SHA-256 of the other files. It is written under a temporary name, synced to the disk, then renamed.
"""

from __future__ import annotations

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
from xlmtrain.runtime.lock import try_lock
from xlmtrain.runtime.output_paths import holds_only

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
FILES = (MODEL, OPTIMIZER, STATE, MANIFEST, f".{STATE}.tmp", f".{MANIFEST}.tmp")
"""All that may be in the directory of a checkpoint."""
Tensors = dict[str, torch.Tensor]
AVERAGE = "average."
"""Beginning of the names of averaged weights, which are among the optimizer's tensors."""


@dataclass
class Checkpoint:
    """A checkpoint in memory: the tensors of model and optimizer by name, and the state."""

    path: Path
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]


def temporary_path(path: Path, kind: str) -> Path:
    """Return the hidden sibling of ``path`` for a checkpoint being written, replaced or deleted.

    ``kind``: ``partial``, ``replaced`` or ``deleted``. After a kill the ``replaced`` one may be the only one.
    """
    return path.with_name(f".{path.name}.{kind}")


def write_checkpoint(path: Path, model: Tensors, optimizer: Tensors, state: dict[str, Any]) -> None:
    """Write the directory ``path``. An existing checkpoint there stays complete until it is replaced.

    Raises CheckpointError if it cannot be written; then no part of it is left.
    """
    temporary = temporary_path(path, "partial")
    try:
        _fill(temporary, model, optimizer, state)
        _put_in_place(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        need = sum(tensor.nbytes for tensors in (model, optimizer) for tensor in tensors.values())
        free = shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.is_dir())).free
        raise CheckpointError(f"{path}: not written ({error}); it needs {need:,} bytes, {free:,} are free") from error
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
    sums = {}
    for file in sorted(directory.iterdir()):
        shutil.copymode(directory / STATE, file)  # safetensors lets nobody else read what it writes
        sync_file(file)
        sums[file.name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    write_json(directory / MANIFEST, sums)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``; an existing checkpoint there has a temporary name meanwhile."""
    replaced = temporary_path(path, "replaced")
    failpoint("save-rename")
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(path, replaced)
    os.replace(temporary, path)
    failpoint("save-renamed")
    for directory in (path.parent, path.parent.parent):  # the second, as the first may be new
        sync_file(directory)
    shutil.rmtree(replaced, ignore_errors=True)


def read_checkpoint(path: Path, optimizer: bool = True, verified: bool = False) -> Checkpoint:
    """Read a checkpoint after checking every file's size and SHA-256 against its manifest.

    ``optimizer``: read its tensors too, twice the size of the model and needed only to train. ``verified``: another
    process of this host has just checked it, so the sizes alone are. Raises CheckpointError that names the first
    missing or different file.
    """
    names = (MODEL, OPTIMIZER) if optimizer else (MODEL,)
    with _verified(path, (*names, STATE), sums=not verified):
        tensors = {}
        for name in names:
            try:
                tensors[name] = load_file(path / name)
            except SafetensorError as error:  # the manifest fits, but somebody wrote both
                raise CheckpointError(f"{path / name}: not a safetensors file ({error})") from error
        return Checkpoint(path, tensors[MODEL], tensors.get(OPTIMIZER, {}), read_json(path / STATE))


def averaged_weights(checkpoint: Checkpoint) -> Tensors:
    """Return the averaged weights by name; empty without an average, or if the optimizer's tensors were not read."""
    found = checkpoint.optimizer.items()
    return {name.removeprefix(AVERAGE): value for name, value in found if name.startswith(AVERAGE)}


def verify_checkpoint(path: Path) -> None:
    """Raise CheckpointError as :func:`read_checkpoint`, without reading the tensors into memory."""
    with _verified(path, (MODEL, OPTIMIZER, STATE)):
        pass


@contextmanager
def _verified(path: Path, names: tuple[str, ...], sums: bool = True) -> Iterator[None]:
    """Check the sizes of the files ``names``, and their SHA-256 if ``sums``.

    Blocks :func:`remove_checkpoint`, where the storage supports locks.
    """
    try:
        with (path / MANIFEST).open("rb") as stream:
            if not try_lock(stream, shared=True):
                raise CheckpointError(f"{path}: is being deleted")
            manifest = read_json(path / MANIFEST)
            for name in names:
                entry, file = manifest.get(name), path / name
                if not isinstance(entry, dict) or not file.is_file():
                    raise CheckpointError(f"{file}: missing")
                if (size := file.stat().st_size) != entry.get("bytes"):
                    raise CheckpointError(f"{file}: {size} bytes, the manifest says {entry.get('bytes')}")
                if sums and sha256_of(file) != entry.get("sha256"):
                    raise CheckpointError(f"{file}: its SHA-256 is not the manifest's")
            yield
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: not readable ({error.strerror or error})") from error


def remove_checkpoint(path: Path) -> bool:
    """Delete a checkpoint. Returns False, and leaves it, if it is being read.

    It is renamed first, so a kill during the deletion leaves no incomplete checkpoint.
    """
    with suppress(FileNotFoundError), (path / MANIFEST).open("r+b") as stream:
        return try_lock(stream) and _delete(path)
    return _delete(path)  # without a manifest nobody can read it


def _delete(path: Path) -> bool:
    if not holds_only(path, FILES):
        log.warning("%s: not deleted, as there are files in it that no checkpoint has", path)
        return False
    doomed = temporary_path(path, "deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(path, doomed)
    failpoint("prune")
    shutil.rmtree(doomed)
    return True
