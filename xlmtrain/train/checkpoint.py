"""The checkpoints of a run: ``checkpoints/step-00001000/``, and ``checkpoints/best.json``, which names the best one.

The content of a checkpoint: ``checkpoint_io.py``.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from xlmtrain.errors import CheckpointError, damage_as
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.output_paths import holds_only
from xlmtrain.runtime.typed_json import typed
from xlmtrain.train.checkpoint_io import (
    FILES,
    Checkpoint,
    Tensors,
    read_checkpoint,
    remove_checkpoint,
    temporary_path,
    verify_checkpoint,
    write_checkpoint,
)

log = logging.getLogger(__name__)
T = TypeVar("T")
_NAME = re.compile(r"step-(\d{8,})|\.step-(\d{8,})\.replaced")
_UNFINISHED = re.compile(r"\.(step-\d{8,})\.(partial|replaced|deleted)")


def checkpoint_path(directory: Path, step: int) -> Path:
    """Return the path of the checkpoint of ``step`` in ``directory``, the ``checkpoints/`` of a run."""
    return directory / f"step-{step:08d}"


class CheckpointManager:
    """Saves, finds and deletes the checkpoints of one run. Only one process writes.

    It keeps the last ``keep_last``, the best one, and those of steps that are a multiple of ``keep_every`` (0: none).
    """

    def __init__(self, directory: Path, keep_last: int, keep_every: int = 0) -> None:
        self._directory, self._keep_last, self._keep_every = directory, keep_last, keep_every

    def save(self, step: int, model: Tensors, optimizer: Tensors, state: dict[str, Any]) -> Path:
        """Write the checkpoint of ``step``. Raises CheckpointError if it cannot be written; older ones stay."""
        path = checkpoint_path(self._directory, step)
        try:
            self._clear_remains()
        except OSError as error:
            raise CheckpointError(f"{path}: not written ({error})") from error
        write_checkpoint(path, model, optimizer, state)
        return path

    def _clear_remains(self) -> None:
        """Finish or delete the unfinished checkpoints of a killed process."""
        for remains in self._directory.glob(".step-*"):
            name = _UNFINISHED.fullmatch(remains.name)
            if name is None or not holds_only(remains, FILES):
                continue  # not left by a save
            final = self._directory / name[1]
            if name[2] == "replaced" and not final.exists():
                os.replace(remains, final)
            else:
                shutil.rmtree(remains, ignore_errors=True)

    def mark_best(self, step: int, metric: str, value: float) -> None:
        """Point ``best.json`` at the checkpoint of ``step``."""
        failpoint("save-best")
        write_json(self._directory / "best.json", {"step": step, "metric": metric, "value": value})

    def best_step(self) -> int | None:
        """Return the step that ``best.json`` names, or None. Raises CheckpointError if it is damaged."""
        path = self._directory / "best.json"
        if not path.is_file():
            return None
        with damage_as(CheckpointError, f"{path}: damaged"):
            return typed(int, read_json(path)["step"], "step")

    def prune(self, step: int, keep_last: int | None = None) -> list[int]:
        """Delete checkpoints that need not be kept when the run is at ``step``. Returns the steps deleted.

        Checkpoints after ``step`` were skipped as damaged at a resume and do not count as the last. If none of those to
        keep is intact, the newest intact one is kept too. A checkpoint that is being read is left for the next call.
        ``keep_last``: overrides the manager's.
        """
        try:
            best = self.best_step()
        except CheckpointError as error:
            log.warning("no checkpoint is deleted, as the best one is not known: %s", error)
            return []
        steps, keep_last = self.steps(), keep_last or self._keep_last
        keep = {*[saved for saved in steps if saved <= step][-keep_last:], best}
        keep |= {saved for saved in steps if self._keep_every and saved % self._keep_every == 0}
        doomed = [saved for saved in steps if saved not in keep]
        if doomed and not any(self._is_intact(saved) for saved in reversed(steps) if saved in keep):
            spared = next((saved for saved in reversed(doomed) if self._is_intact(saved)), None)
            log.warning("none of the checkpoints to keep is intact; the one of step %s is kept, too", spared)
            doomed = [saved for saved in doomed if saved != spared]
        return [saved for saved in doomed if self._remove(saved)]

    def _is_intact(self, step: int) -> bool:
        try:
            verify_checkpoint(self.path(step))
        except CheckpointError as error:
            log.warning("damaged checkpoint: %s", error)
            return False
        return True

    def _remove(self, step: int) -> bool:
        try:
            return remove_checkpoint(self.path(step))
        except OSError as error:  # the next save tries again
            log.warning("%s: not deleted (%s)", self.path(step), error)
            return False

    def steps(self) -> list[int]:
        """Return the steps with a checkpoint, intact or not, in ascending order."""
        paths = self._directory.iterdir() if self._directory.is_dir() else ()
        found = (_NAME.fullmatch(path.name) for path in paths if path.is_dir())
        return sorted({int(match[1] or match[2]) for match in found if match})

    def latest(self, optimizer: bool = True) -> Checkpoint | None:
        """Return the newest intact checkpoint, or None if there is none at all. ``optimizer`` as in read_checkpoint.

        Skips damaged ones with a warning. Raises CheckpointError if all are damaged: to start again from the beginning
        would throw the run away.
        """
        found = self._newest(partial(read_checkpoint, optimizer=optimizer))
        return found[1] if found else None

    def newest_intact(self) -> int | None:
        """Return the step of the checkpoint that :meth:`latest` returns, without reading the tensors into memory."""
        found = self._newest(verify_checkpoint)
        return found[0] if found else None

    def _newest(self, check: Callable[[Path], T]) -> tuple[int, T] | None:
        damage = []
        for step in reversed(self.steps()):
            try:
                return step, check(self.path(step))
            except CheckpointError as error:
                damage.append(str(error))
                log.warning("checkpoint passed over: %s", error)
        if damage:
            raise CheckpointError(
                "every checkpoint of the run is damaged:\n  " + "\n  ".join(damage) + "\n"
                "restore a good copy, or start again with train.overwrite=true"
            )
        return None

    def path(self, step: int) -> Path:
        """Return the directory of the checkpoint of ``step``."""
        path = checkpoint_path(self._directory, step)
        replaced = temporary_path(path, "replaced")
        return replaced if replaced.is_dir() and not path.is_dir() else path
