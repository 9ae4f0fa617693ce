"""Run tasks of a sharded stage: in processes of this machine, on Ray, or as array jobs of Slurm.

Ray's cluster is that of RAY_ADDRESS, else one of this machine's cores that ends with the preparation; its usage reports
are switched off. Each array task of Slurm runs a share of the tasks, with ``xlmtrain prepare-shards``.
"""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import os
import shlex
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

from xlmtrain.errors import ConfigError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, InterruptedWork
from xlmtrain.prepare.task_runner import run_task
from xlmtrain.runtime.process_pool import initialize_worker, worker_context, worker_count

PARALLEL_BYTES = 4 << 20
"""Bytes of text from which on starting processes is faster than working in this one."""
ARRAY_TASKS = 100
POLL_SECONDS = 2.0

logger = logging.getLogger(__name__)


def run_local(directory: Path, tasks: Sequence[BuildTask], workers: int) -> Iterator[str]:
    """Yield the keys of ``tasks`` as they finish; ends early if a worker process dies. Exceptions of tasks are passed
    on. With one worker all tasks run in this process.

    Workers remember words, so each prefers tasks of one language.
    """
    workers = min(worker_count(workers), len(tasks))
    if workers <= 1 or sum(task.size for task in tasks) < PARALLEL_BYTES:
        for task in tasks:
            yield run_task(directory, task)
        return
    earlier = set(multiprocessing.active_children())
    context = worker_context(run_task.__module__)
    pools = [ProcessPoolExecutor(1, context, initializer=initialize_worker) for _ in range(workers)]
    shares = shares_of(tasks, workers)
    running: dict[Future[str], int] = {}

    def start(worker: int) -> None:
        """Give a worker its next task, or, when its share is done, the last one of the largest share."""
        own, largest = shares[worker], max(shares, key=len)
        if largest:
            running[pools[worker].submit(run_task, directory, own.popleft() if own else largest.pop())] = worker

    try:
        for worker in range(workers):
            start(worker)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                start(running.pop(future))
                yield future.result()
    except BrokenProcessPool:
        logger.warning("a worker process died; its task is run again")
    finally:
        for process in set(multiprocessing.active_children()) - earlier:
            process.terminate()  # busy only if this process is interrupted
        for pool in pools:
            pool.shutdown(cancel_futures=True)  # joins them; joining here too would be a race


def shares_of(tasks: Sequence[BuildTask], workers: int) -> list[deque[BuildTask]]:
    """Return a share of about as much text for each worker, of as few languages as possible."""
    tasks = sorted(tasks, key=lambda task: str(task.arguments.get("languages")))
    whole, before = sum(task.size for task in tasks), 0
    shares: list[deque[BuildTask]] = [deque() for _ in range(workers)]
    for task in tasks:
        shares[min((before + task.size // 2) * workers // whole, workers - 1)].append(task)
        before += task.size
    return shares


def run_on_ray(directory: Path, tasks: Sequence[BuildTask], workers: int) -> Iterator[str]:
    """Yield the keys of ``tasks`` as they finish, without those whose workers were lost more than twice. Exceptions of
    tasks are passed on. Raises ConfigError if Ray is not installed."""
    try:
        ray = importlib.import_module("ray")  # takes 0.6 s, a fifth of the preparation of a small corpus
    except ImportError:
        raise ConfigError("executor=ray needs the package ray; install it with: pip install ray") from None
    owned = not ray.is_initialized()
    if owned:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # "local", as Ray would otherwise join any cluster that runs on this machine.
        ray.init(os.environ.get("RAY_ADDRESS", "local"), include_dashboard=False, log_to_driver=False)
    try:
        run = ray.remote(max_retries=2)(run_task)
        parallel = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = iter(tasks)
        running = [run.remote(directory, task) for task in islice(waiting, parallel)]
        while running:
            done, running = ray.wait(running)
            running += [run.remote(directory, task) for task in islice(waiting, len(done))]
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                logger.warning("a Ray worker was lost (%s); its task is run again", type(error).__name__)
    finally:
        if owned:
            ray.shutdown()


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
    command = shlex.join([sys.executable, "-m", "xlmtrain", "prepare-shards", f"tasks={file}", f"of={shares}"])
    script = logs / f"{stage}.sh"
    script.write_text(f'#!/bin/sh\nexec {command} share="$SLURM_ARRAY_TASK_ID"\n', encoding="utf-8")
    sbatch = ["sbatch", "--wait", f"--array=0-{shares - 1}", f"--job-name={name}", f"--output={logs}/{stage}-%A-%a.txt"]
    try:
        with script.open() as stdin:
            job = subprocess.Popen(
                [*sbatch, *options], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
    except FileNotFoundError:
        raise ConfigError("executor=slurm needs Slurm's sbatch, which is not on this machine's PATH") from None
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
