"""Checkpoints that are whole or not there, and that are read only after every byte was checked.

``checkpoints/step-00001000/`` holds ``model.safetensors``, ``optimizer.safetensors``, ``state.json`` and
``manifest.json`` with the SHA-256 of the others. It is written under another name, synced to the disk, then renamed.
``checkpoints/best.json`` names the best one.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from xlmtrain.errors import CheckpointError
from xlmtrain.runtime import faults
from xlmtrain.runtime.files import read_json, sha256_of, sync_file, write_json

log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{8,})")


@dataclass
class Checkpoint:
    """One checkpoint as read: the two files' tensors by name, and the state."""

    path: Path
    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run. One process writes."""

    def __init__(self, directory: Path, keep_last: int) -> None:
        self._directory, self._keep_last = directory, keep_last

    def save(
        self, step: int, model: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor], state: dict[str, Any]
    ) -> Path:
        """Write the checkpoint of ``step``. Raises CheckpointError if it cannot be written; older ones stay."""
        final = self.path(step)
        temporary = self._directory / f".{final.name}.partial"
        for remains in self._directory.glob(".*.partial"):  # of a save that was killed
            shutil.rmtree(remains, ignore_errors=True)
        try:
            faults.reach("save-open")
            temporary.mkdir(parents=True)
            for name, tensors in (("model", model), ("optimizer", optimizer)):
                save_file(
                    {key: tensor.contiguous() for key, tensor in tensors.items()}, temporary / f"{name}.safetensors"
                )
                faults.reach("save-write")
            write_json(temporary / "state.json", state)
            faults.reach("save-sync")
            files = sorted(temporary.iterdir())
            for file in files:
                shutil.copymode(temporary / "state.json", file)  # safetensors lets nobody else read what it writes
                sync_file(file)
            sums = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files}
            write_json(temporary / "manifest.json", sums)
            sync_file(temporary)
            faults.reach("save-rename")
            shutil.rmtree(final, ignore_errors=True)  # left by a run that was resumed from before it
            os.replace(temporary, final)
            faults.reach("save-renamed")
            sync_file(self._directory)
        except Exception as error:  # safetensors reports a full disk as an error of its own
            shutil.rmtree(temporary, ignore_errors=True)
            free = shutil.disk_usage(self._directory.parent).free
            need = sum(t.numel() * t.element_size() for tensors in (model, optimizer) for t in tensors.values())
            raise CheckpointError(
                f"{final}: not written ({error}); it needs {need:,} bytes, {free:,} are free"
            ) from error
        return final

    def mark_best(self, step: int, metric: str, value: float) -> None:
        """Point ``best.json`` at the checkpoint of ``step``."""
        faults.reach("save-best")
        write_json(self._directory / "best.json", {"step": step, "metric": metric, "value": value})

    def best_step(self) -> int | None:
        """The step ``best.json`` points at."""
        path = self._directory / "best.json"
        return read_json(path).get("step") if path.is_file() else None

    def prune(self, step: int) -> None:
        """Delete all but the last few up to ``step``, where the run stands, and the best.

        Later ones were passed over as damaged when the run was resumed: they must not count as the last.
        """
        steps = self.steps()
        keep = {*[saved for saved in steps if saved <= step][-self._keep_last :], self.best_step()}
        for saved in steps:
            if saved not in keep:
                faults.reach("prune")
                try:
                    shutil.rmtree(self.path(saved))
                except OSError as error:  # somebody reads it, say: the next save tries again
                    log.warning("%s: not deleted (%s)", self.path(saved), error)

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, rising; whether it is sound is not looked at."""
        paths = self._directory.iterdir() if self._directory.is_dir() else ()
        found = (_NAME.fullmatch(path.name) for path in paths if path.is_dir())
        return sorted(int(match[1]) for match in found if match)

    def latest(self, optimizer: bool = True) -> Checkpoint | None:
        """The newest sound checkpoint, None if there is no checkpoint at all. ``optimizer`` as in read_checkpoint.

        Passes over damaged ones with a warning. Raises CheckpointError if all are damaged: to begin anew by itself
        would throw the run away.
        """
        steps = self.steps()
        damage = []
        for step in reversed(steps):
            try:
                return read_checkpoint(self.path(step), optimizer)
            except CheckpointError as error:
                damage.append(str(error))
                log.warning("checkpoint passed over: %s", error)
        if damage:
            raise CheckpointError(
                "every checkpoint of the run is damaged:\n  " + "\n  ".join(damage) + "\n"
                "put back a good copy, or begin anew with train.fresh=true"
            )
        return None

    def path(self, step: int) -> Path:
        """The directory of the checkpoint of ``step``."""
        return self._directory / f"step-{step:08d}"


def read_checkpoint(path: Path, optimizer: bool = True) -> Checkpoint:
    """Read a checkpoint's directory after checking every file's size and SHA-256 against its manifest.

    ``optimizer``: its tensors too, which are twice the model's and of use to training only. Raises CheckpointError that
    names the first file that is missing or different.
    """
    manifest = read_json(path / "manifest.json")
    for name in ("model.safetensors", *(["optimizer.safetensors"] if optimizer else []), "state.json"):
        entry, file = manifest.get(name), path / name
        if not isinstance(entry, dict) or not file.is_file():
            raise CheckpointError(f"{file}: missing")
        if file.stat().st_size != entry.get("bytes"):
            raise CheckpointError(f"{file}: {file.stat().st_size} bytes, the manifest says {entry.get('bytes')}")
        if sha256_of(file) != entry.get("sha256"):
            raise CheckpointError(f"{file}: its SHA-256 is not the manifest's")
    return Checkpoint(
        path,
        load_file(path / "model.safetensors"),
        load_file(path / "optimizer.safetensors") if optimizer else {},
        read_json(path / "state.json"),
    )
