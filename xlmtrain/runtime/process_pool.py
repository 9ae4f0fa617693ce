"""Worker processes, and a process pool that keeps the order of results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

from xlmtrain.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
IN_FLIGHT_PER_WORKER = 4
PRELOADED: list[str] = []
"""Modules, besides those asked for, that worker processes have imported when they start."""


def worker_count(setting: int) -> int:
    """Return the number of processes for a setting; 0 means every core this process may use."""
    if setting:
        return setting
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_context(*modules: str) -> BaseContext:
    """Return how worker processes start: where it exists, forked from a server that has imported ``modules`` once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, *modules])
    return context


def initialize_worker() -> None:
    """Prepare a worker process: leave Ctrl-C to the parent, and exit when the parent ends, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "not a worker process"
    parent.join()
    os._exit(1)


def pool_imap(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield ``function(item)`` for each item, in order.

    A bounded number of items is in flight, so memory does not grow with their number. Exceptions of workers are passed
    on. One worker is this process.
    """
    if workers == 1:
        yield from map(function, items)
        return
    executor = ProcessPoolExecutor(workers, worker_context(), initializer=initialize_worker)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) >= workers * IN_FLIGHT_PER_WORKER:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, killed perhaps for lack of memory; take fewer with workers=..."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)
