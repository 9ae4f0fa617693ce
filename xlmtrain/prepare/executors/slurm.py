"""Run tasks as array jobs of Slurm: each array task runs a share of them, with ``tools/prepare_shards.py``."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from xlmtrain.errors import ConfigError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, InterruptedWork
from xlmtrain.prepare.worker import run_task

ARRAY_TASKS = 100
POLL_SECONDS = 2.0
TOOL = Path(__file__).resolve().parents[3] / "tools" / "prepare_shards.py"  # the programs run from a checkout


def run_on_slurm(directory: Path, tasks: Sequence[BuildTask], workers: int, options: Sequence[str]) -> Iterator[str]:
    """Yield the keys of ``tasks`` as they finish in an array job with sbatch's ``options``, until the job ends.

    Raises ConfigError if sbatch is missing, InterruptedWork with Slurm's or the tool's message if no task finishes.
    """
    stage, name = tasks[0].stage, f"xlmtrain-{uuid.uuid4().hex[:12]}"
    shares = min(workers or ARRAY_TASKS, len(tasks))
    logs = directory / "logs"
    logs.mkdir(exist_ok=True)
    file = directory / f"{stage}.tasks.json"
    file.write_text(json.dumps([[task.stage, task.arguments] for task in tasks]), encoding="utf-8")
    arguments = [f"tasks={file}", f"of={shares}"]
    command = " ".join(shlex.quote(part) for part in (sys.executable, str(TOOL), *arguments))
    sbatch = ["sbatch", "--wait", f"--array=0-{shares - 1}", f"--job-name={name}", f"--output={logs}/{stage}-%A-%a.txt"]
    try:
        job = subprocess.Popen(
            [*sbatch, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except FileNotFoundError:
        raise ConfigError("executor=slurm needs Slurm's sbatch, which is not on this machine's PATH") from None
    assert job.stdin is not None
    job.stdin.write(f'#!/bin/sh\nexec {command} share="$SLURM_ARRAY_TASK_ID"\n')
    job.stdin.close()
    job.stdin = None
    left = list(tasks)
    try:
        while left:
            ended = _has_ended(job)
            finished = [task for task in left if ArtifactStore(directory).exists(task)]
            yield from (task.key for task in finished)
            left = [task for task in left if task not in finished]
            if ended:
                break
    except BaseException:
        subprocess.run(["scancel", f"--name={name}"], check=False)
        raise
    finally:
        job.kill()
        output = job.communicate()[0]
    if len(left) == len(tasks):
        reason = _last_log_line(logs, stage) or output.strip()
        raise InterruptedWork(f"the Slurm job of stage {stage} finished no task: {reason}")


def _has_ended(job: subprocess.Popen[str]) -> bool:
    try:
        job.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _last_log_line(logs: Path, stage: str) -> str:
    """Return the last line of the newest log that is not empty, with its path."""
    for path in sorted(logs.glob(f"{stage}-*.txt"), key=lambda path: path.stat().st_mtime, reverse=True):
        if lines := path.read_text(encoding="utf-8", errors="replace").strip().splitlines():
            return f"{lines[-1]} ({path})"
    return ""


def run_share(tasks: Path, share: int, of: int) -> Iterator[str]:
    """Run every ``of``-th task of the file, from number ``share`` on, as one array task does; yields the keys.

    Raises ConfigError if the file is not a list of tasks.
    """
    try:
        listed = [BuildTask(*item) for item in json.loads(tasks.read_bytes())]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"tasks={tasks}: not a list of tasks ({error}); give the {{stage}}.tasks.json of a running preparation"
        ) from None
    for task in listed[share::of]:
        yield run_task(tasks.parent, task)
