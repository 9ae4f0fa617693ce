"""Watchdog thread: writes heartbeats, and ends the process when it makes no progress."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EXIT_HUNG = 6
"""Exit code of a process that made no progress."""
HEARTBEAT_SECONDS = 10.0
"""Seconds between two heartbeats."""
GRACE_SECONDS = 2.0
"""Seconds by which the time limit of collectives is longer, so that the watchdog, which reports more, acts first."""
_POLL_SECONDS = 0.5
"""Seconds between two checks."""


class Watchdog:
    """Watches the process from :meth:`start` to :meth:`stop`; the program calls :meth:`report_progress`.

    After ``timeout`` seconds without progress it prints the stack of every thread, calls ``hung`` with the reason, and
    ends the process with exit code EXIT_HUNG: a process that waits forever for another one, or for storage, cannot do
    that itself. Every process of a run that hangs prints its own stacks. ``beat`` is called every HEARTBEAT_SECONDS.
    """

    def __init__(self, timeout: float, beat: Callable[[], None], hung: Callable[[str], None]) -> None:
        self._timeout, self._beat, self._hung = timeout, beat, hung
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.report_progress()

    def start(self) -> None:
        """Start the thread."""
        self.report_progress()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; no heartbeat follows."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def report_progress(self) -> None:
        """Tell the watchdog that the process is not hanging."""
        self._mark = time.monotonic()

    def _run(self) -> None:
        looked = beaten = time.monotonic()
        while not self._over.wait(_POLL_SECONDS):
            now = time.monotonic()
            if now - looked > 10 * _POLL_SECONDS:  # the process was suspended (Ctrl-Z) and has just continued
                self.report_progress()
            looked = now
            if now - self._mark > self._timeout:
                self._end()
            if now - beaten >= HEARTBEAT_SECONDS:
                beaten = now
                self._beat()

    def _end(self) -> None:
        reason = f"no progress for {self._timeout:g} seconds (train.hang_timeout)"
        log.error("%s; this is where every thread of the process stands:", reason)
        sys.stderr.flush()
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        self._hung(reason)
        os._exit(EXIT_HUNG)
