"""Stopping politely: the first signal asks for a checkpoint and an end, the second ends at once."""

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
        self.signal = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
