"""Progress of a long job: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from tqdm import tqdm

LOG_SECONDS = 10.0


class ProgressBar:
    """Progress of one stage: a bar with rate and time left on a terminal, else a line every ten seconds."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        """``unit``: ``B`` counts bytes, shown in powers of 1000."""
        self._stage, self._total = stage, total
        self._scale, self._unit, self._digits = (1e6, "MB", 1) if unit == "B" else (1.0, unit, 0)
        self._done = 0
        self._start = self._logged = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=stage, unit=unit, unit_scale=True, leave=False) if terminal else None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if exception_type is None:
            print(f"{self._stage}: {self._amount(self._done)} in {time.monotonic() - self._start:.1f} s", flush=True)

    def advance(self, amount: int) -> None:
        """Add ``amount`` to the finished work."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(amount)
            return
        now = time.monotonic()
        if now - self._logged >= LOG_SECONDS and self._done:
            self._logged = now
            rate = self._done / (now - self._start)
            left = timedelta(seconds=round(max(self._total - self._done, 0) / rate))
            print(
                f"{self._stage}: {self._amount(self._done)} of {self._amount(self._total)}, "
                f"{rate / self._scale:.1f} {self._unit}/s, {left} left",
                flush=True,
            )

    def _amount(self, value: float) -> str:
        return f"{value / self._scale:,.{self._digits}f} {self._unit}"
