"""Asking SLURM to start this job again."""

from __future__ import annotations

import logging
import os
import re
import subprocess

from xlmtrain.errors import ConfigError

log = logging.getLogger(__name__)


def job_id() -> str:
    """The job this process belongs to. Raises ConfigError without one, or with one that cannot be SLURM's."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        raise ConfigError(
            f"train.requeue=slurm: SLURM_JOB_ID={job!r} is no job of SLURM's; it is digits, or digits_digits"
        )
    return job


def requeue(job: str) -> None:
    """Have the job ``job`` started again; a refusal is logged, as the run itself is safe."""
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60, capture_output=True, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None)
        log.error("scontrol requeue %s: %s %s; start the job again yourself", job, error, said or "")
    else:
        log.info("job %s is queued again", job)
