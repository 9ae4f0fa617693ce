"""The process and its surroundings: stop signals, SLURM's requeue, garbage collection, the C library's allocator."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from xlmtrain.errors import ConfigError

log = logging.getLogger(__name__)

GC_STEPS = 50
"""Steps between two runs of Python's garbage collector."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Parameters of mallopt(3), which glibc has.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


class StopRequest:
    """The signal that asked this process to stop, if any. The training loop reads it between steps.

    A first signal asks for a checkpoint and an orderly end; a second Ctrl-C ends the process immediately.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    @property
    def reason(self) -> str:
        """The signal as the reason why a run ends."""
        return f"signal {self.signal}" if self.signal else "signal to another process"

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # A launcher may forward a SIGTERM that this process received already: only Ctrl-C counts twice.
        if number == signal.SIGINT and self.signal is not None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        self.signal = number


@contextmanager
def gc_at_steps() -> Iterator[None]:
    """Let :func:`collect_garbage` alone run Python's garbage collector; what exists already is never looked at again.

    Left to itself the collector stops each process at another time, and all the others wait for it in the next
    collective.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def collect_garbage(step: int) -> None:
    """Collect garbage if it is due after ``step``, which is the same on all processes."""
    if step % GC_STEPS == 0:
        gc.collect()


class Interrupted(Exception):
    """Work was given up on all ranks because one of them was asked to stop."""


def slurm_job_id() -> str:
    """Return the SLURM job of this process. Raises ConfigError if SLURM_JOB_ID is missing or not a job id."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        raise ConfigError(
            f"train.requeue=slurm: SLURM_JOB_ID={job!r} is not the id of a SLURM job (digits, or digits_digits)"
        )
    return job


def requeue(job: str) -> None:
    """Ask SLURM to start ``job`` again. A refusal is only logged: the run itself is saved."""
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60, capture_output=True, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None)
        log.error("scontrol requeue %s: %s %s; start the job again yourself", job, error, said or "")
    else:
        log.info("job %s is queued again", job)


def disable_malloc_trim(device: torch.device) -> None:
    """Let the heap keep freed memory instead of returning it to the kernel, if ``device`` is a CPU. Needs glibc.

    Every step allocates the same large tensors. By default glibc takes each of them from the kernel, page by page and
    zeroed, and returns it: a fifth of the time of a step on a CPU. Where a GPU trains, large blocks are few.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and device.type == "cpu":
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
        mallopt(_M_MMAP_MAX, 0)  # everything from the heap
