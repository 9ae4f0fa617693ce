"""How far a stage of preparation is."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from xlmtrain.metrics.timer import duration

LOG_SECONDS = 10.0


class ProgressBar:
    """A bar with rate and time left on a terminal, else a plain line every ten seconds."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        """``unit``: ``B`` counts bytes, shown in powers of 1000."""
        self._stage, self._total, self._unit = stage, total, unit
        self._scale = 1e6 if unit == "B" else 1.0
        self._unit_name = "MB" if unit == "B" else unit
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
                f"{rate / self._scale:.1f} {self._unit_name}/s, {duration(left)} left",
                flush=True,
            )

    def _amount(self, value: float) -> str:
        return f"{value / self._scale:,.{1 if self._unit == 'B' else 0}f} {self._unit_name}"
