"""Asynchronous checkpoints: tensors are copied between two steps, and one thread writes the copies.

A save waits for the one before it. So there is one copy in memory, the steps with checkpoints do not depend on the
clock, and a crash costs at most twice the steps between two saves. Training waits for storage that is slower.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from xlmtrain.errors import CheckpointError
from xlmtrain.runtime.device import copies_asynchronously
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import Tensors
from xlmtrain.train.parallel import full_tensor

log = logging.getLogger(__name__)

RETRY_DELAYS = (1.0, 3.0)
"""Seconds before the second and the third attempt of a save."""
MAX_CONSECUTIVE_FAILURES = 3
"""Consecutive failed saves that end the run."""
# Matched in the error's text, as safetensors gives no error number.
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


class Best(NamedTuple):
    """The best checkpoint so far: its step, and the value of the metric there."""

    step: int
    metric: str
    value: float


class AsyncCheckpointer:
    """Saves, updates ``best.json`` and prunes, in that order, in a thread of the main process.

    A save is attempted three times; on a full disk all checkpoints that need not be kept are deleted first. If it still
    fails, a warning is logged and the run continues. After MAX_CONSECUTIVE_FAILURES such saves in a row :meth:`wait`
    raises CheckpointError. All methods but ``close`` and the flags are collective. ``report_progress``: called every
    second while the processes wait for the disk.
    """

    def __init__(
        self, store: CheckpointManager, distributed: Distributed, report_progress: Callable[[], None] = lambda: None
    ) -> None:
        self._store, self._distributed, self._report_progress = store, distributed, report_progress
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._job: Future[None] | None = None
        self._copies: dict[str, Tensors] = {}
        self._failures = 0
        self._last_failure: CheckpointError | None = None

    def has_failed(self) -> bool:
        """Return True on the main process if :meth:`wait` is going to raise."""
        return self._job is not None and self._job.done() and self._job.exception() is not None

    def wait(self) -> None:
        """Wait until the disk has what is being written. Raises the error that ended the thread, on all ranks."""
        self._distributed.wait_for(self._job, self._report_progress)
        failed, job, self._job = self._distributed.any(self.has_failed()), self._job, None
        if job is not None:
            job.result()
        if failed:
            raise CheckpointError("the main process cannot write checkpoints; its message gives the reason")

    def finalize(self) -> None:
        """Wait for the last save. Raises CheckpointError if it failed, even if the run could have continued."""
        self.wait()
        if self._last_failure is not None:
            raise self._last_failure

    def save(self, step: int, model: Tensors, optimizer: Tensors, state: dict[str, Any], best: Best | None) -> None:
        """Copy the tensors, which may be sharded, and start to write them.

        The caller must not change ``state`` afterwards.
        """
        self.wait()
        if self._distributed.is_main:
            failpoint("snapshot")
        copies = self._copy("model", model), self._copy("optimizer", optimizer)
        if self._distributed.is_main:
            write = partial(self._store.save, step, *copies, state)
            self._job = self._thread.submit(self._save, step, write, best)

    def update_best(self, best: Best | None) -> None:
        """Write ``best.json``, which is out of date if the process was killed after a save."""
        self.wait()
        if self._distributed.is_main:
            self._job = self._thread.submit(self._update_best, best)

    def close(self) -> None:
        """Wait for the thread and end it, also after an error."""
        self._thread.shutdown(wait=True)
        error = self._job.exception() if self._job is not None else None
        if error is not None:
            log.warning("the last checkpoint: %s: %s", type(error).__name__, error)

    def _copy(self, part: str, tensors: Tensors) -> Tensors:
        """Return copies in (pinned) host memory, which is reused by the next copy of the same part.

        Sharded tensors are all-gathered one by one; only the main process keeps them, and none on its device.
        """
        copies = self._copies.setdefault(part, {})
        for name, shard in tensors.items():
            tensor = full_tensor(shard)
            if not self._distributed.is_main:
                continue
            old, pinned = copies.get(name), copies_asynchronously(tensor.device)
            if old is None or (old.shape, old.dtype) != (tensor.shape, tensor.dtype):
                copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
            copies[name].copy_(tensor, non_blocking=pinned)
        if any(copies_asynchronously(tensor.device) for tensor in tensors.values()):
            torch.accelerator.synchronize()
        return {name: copies[name] for name in tensors} if copies else {}

    def _save(self, step: int, write: Callable[[], Path], best: Best | None) -> None:
        try:
            self._try_to_save(step, write)
        except CheckpointError as error:
            self._failures += 1
            self._last_failure = error
            if self._failures >= MAX_CONSECUTIVE_FAILURES:
                raise CheckpointError(
                    f"{error}\n{self._failures} saves in a row failed, so the run ends; its last checkpoint is whole. "
                    "Free disk space or fix the storage, then give the same command again"
                ) from error
            log.warning(
                "checkpoint not saved, training goes on (%d of %d): %s", self._failures, MAX_CONSECUTIVE_FAILURES, error
            )
            return
        self._failures, self._last_failure = 0, None
        self._update_best(best)
        try:
            self._store.prune(step)
        except OSError as error:
            log.warning("old checkpoints not deleted (%s); the next save tries again", error)

    def _try_to_save(self, step: int, write: Callable[[], Path]) -> None:
        for pause in RETRY_DELAYS:
            try:
                write()
                return
            except CheckpointError as error:
                log.info("trying again in %.0f s: %s", pause, error)
                if any(text in str(error) for text in _FULL):
                    with suppress(OSError):
                        self._store.prune(step, keep_last=1)
                time.sleep(pause)
        write()

    def _update_best(self, best: Best | None) -> None:
        try:
            if best is not None and best.step in self._store.steps():
                self._store.mark_best(*best)
        except OSError as error:
            log.warning("best.json not written (%s); the next save tries again", error)
