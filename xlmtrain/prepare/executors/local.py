"""Processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from xlmtrain.prepare.artifacts import BuildTask
from xlmtrain.prepare.shard_stages import run_task
from xlmtrain.runtime.process_pool import initialize_worker, worker_count

WORTH_PROCESSES = 4 << 20
"""Bytes of text; less is done sooner than processes have started."""

logger = logging.getLogger(__name__)


def run_local(directory: Path, tasks: Sequence[BuildTask], workers: int) -> Iterator[str]:
    """The keys of ``tasks`` as they are done, which ends early if a worker process dies. An exception in a worker
    arrives here as it is. One worker is this process."""
    workers = min(worker_count(workers), len(tasks))
    if workers <= 1 or sum(task.size for task in tasks) < WORTH_PROCESSES:
        for task in tasks:
            yield run_task(directory, task)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=initialize_worker)
    try:
        for future in as_completed([pool.submit(run_task, directory, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool:
        logger.warning("a worker process died; its shard is done again")
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # in the middle of a shard, if we are interrupted
        pool.shutdown(cancel_futures=True)  # it joins them: if we did that too, either would miss what the other saw
