"""A process pool that keeps the order, and progress of long work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

from xlmtrain.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
LOG_SECONDS = 10.0
IN_FLIGHT_PER_WORKER = 4


def worker_count(setting: int) -> int:
    """The number of processes for a setting; 0 means every core this process may use."""
    if setting:
        return setting
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(make: Callable[[], Callable[[T], R]], items: Iterable[T], workers: int) -> Iterator[R]:
    """The results of ``make()(item)`` in the order of ``items``.

    Every process calls ``make`` once, for what is costly to build. A bounded number of items is in flight, so memory
    does not grow with the corpus. An exception in a worker arrives here as it is. With one worker all work is done in
    this process.
    """
    if workers == 1:
        yield from map(make(), items)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_initialize, initargs=(make,))
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(_run, item))
            if len(pending) >= workers * IN_FLIGHT_PER_WORKER:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, killed perhaps for want of memory; take fewer with workers=..."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


# A pool can only reach what its workers keep in a module: this is set once in each of them, never in the parent.
_worker: dict[str, Any] = {}


def _initialize(make: Callable[[], Callable]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _worker["make"] = make


def _run(item: Any) -> Any:
    # Built here, not in the initializer, whose exceptions would reach the parent as a broken pool only.
    if "task" not in _worker:
        _worker["task"] = _worker["make"]()
    return _worker["task"](item)


class Progress:
    """How far a stage is: a bar with rate and time left on a terminal, else a plain line every ten seconds."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        """``unit``: ``B`` counts bytes, shown in powers of 1000."""
        self._stage, self._total, self._unit = stage, total, unit
        self._scale = 1e6 if unit == "B" else 1.0
        self._unit_name = "MB" if unit == "B" else unit
        self._done = 0
        self._start = self._logged = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=stage, unit=unit, unit_scale=True, leave=False) if terminal else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if exception_type is None:
            print(f"{self._stage}: {self._amount(self._done)} in {time.monotonic() - self._start:.1f} s", flush=True)

    def advance(self, amount: int) -> None:
        """``amount`` more is done."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(amount)
            return
        now = time.monotonic()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            rate = self._done / (now - self._start)
            left = max(self._total - self._done, 0) / max(rate, 1e-9)
            print(
                f"{self._stage}: {self._amount(self._done)} of {self._amount(self._total)}, "
                f"{rate / self._scale:.1f} {self._unit_name}/s, {left:.0f} s left",
                flush=True,
            )

    def _amount(self, value: float) -> str:
        return f"{value / self._scale:,.{1 if self._unit == 'B' else 0}f} {self._unit_name}"
