"""Show the progress of a long stage: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import sys

from tqdm import tqdm

LOG_SECONDS = 10.0


class _LogLines(io.StringIO):
    """Prints what tqdm writes as lines of their own, without the marks that redraw a bar."""

    def write(self, text: str) -> int:
        if text.strip():
            print(text.strip(), flush=True)
        return len(text)


class ProgressBar(tqdm):  # type: ignore[misc]
    """tqdm's bar; in a log a line every ten seconds. A stage that fails prints no last line."""

    monitor_interval = 0  # no thread beside the worker processes that are forked

    def __init__(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """``total`` and ``done``: in ``unit``, ``B`` for bytes."""
        options = (
            {"leave": False, "dynamic_ncols": True}
            if sys.stderr.isatty()
            else {"file": _LogLines(), "mininterval": LOG_SECONDS, "ncols": 0}
        )
        super().__init__(desc=stage, total=total, initial=done, unit=unit, unit_scale=True, **options)

    def __exit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        self.leave = exception_type is None and not sys.stderr.isatty()
        self.close()
