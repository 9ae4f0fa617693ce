"""A thread that looks after the process: it gives signs of life, and ends it when it makes no progress any more."""

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
"""Seconds between two signs of life."""
GRACE_SECONDS = 2.0
"""Seconds by which the time limits of the processes' talk are longer, so that this one, which tells more, is first."""
_POLL_SECONDS = 0.5
"""Seconds between two looks."""


class Watchdog:
    """Watches from :meth:`start` to :meth:`stop`; the program says that it gets on with :meth:`progress`.

    After ``timeout`` seconds without progress it prints where every thread stands, calls ``hung`` with the reason, and
    ends the process with exit code HUNG: a process that waits for ever for another one, or for storage, cannot do that
    itself. All processes of a run that hangs stand still, so each prints its own. ``beat`` is called every BEAT
    seconds.
    """

    def __init__(self, timeout: float, beat: Callable[[], None], hung: Callable[[str], None]) -> None:
        self._timeout, self._beat, self._hung = timeout, beat, hung
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.progress()

    def start(self) -> None:
        """Begin."""
        self.progress()
        self._thread.start()

    def stop(self) -> None:
        """End; no sign of life comes after this."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def progress(self) -> None:
        """The process has got on."""
        self._mark = time.monotonic()

    def _run(self) -> None:
        looked = beaten = time.monotonic()
        while not self._over.wait(_POLL_SECONDS):
            now = time.monotonic()
            if now - looked > 10 * _POLL_SECONDS:  # the process itself was stopped, by Ctrl-Z say, and goes on now
                self.progress()
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
