"""Stopping politely: a signal asks for a checkpoint and an end; a second Ctrl-C ends at once."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Remembers the signal that asked this process to stop; the training loop looks at it between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # A launcher may pass on a SIGTERM that this process got by itself already: only Ctrl-C counts twice.
        if number == signal.SIGINT and self.signal is not None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        self.signal = number
