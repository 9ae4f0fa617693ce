"""Run tasks in processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from xlmtrain.prepare.artifacts import BuildTask
from xlmtrain.prepare.worker import run_task
from xlmtrain.runtime.process_pool import initialize_worker, worker_count

PARALLEL_BYTES = 4 << 20
"""Bytes of text from which on starting processes is faster than working in this one."""

logger = logging.getLogger(__name__)


def run_local(directory: Path, tasks: Sequence[BuildTask], workers: int) -> Iterator[str]:
    """Yield the keys of ``tasks`` as they finish; ends early if a worker process dies. Exceptions of tasks are passed
    on. With one worker all tasks run in this process."""
    workers = min(worker_count(workers), len(tasks))
    if workers <= 1 or sum(task.size for task in tasks) < PARALLEL_BYTES:
        for task in tasks:
            yield run_task(directory, task)
        return
    earlier = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=initialize_worker)
    try:
        for future in as_completed([pool.submit(run_task, directory, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool:
        logger.warning("a worker process died; its task is run again")
    finally:
        for process in set(multiprocessing.active_children()) - earlier:
            process.terminate()  # busy only if this process is interrupted
        pool.shutdown(cancel_futures=True)  # joins them; joining here too would be a race
