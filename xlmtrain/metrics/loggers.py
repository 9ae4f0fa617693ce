"""Metrics loggers: ``metrics.jsonl``, TensorBoard, and the console."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from xlmtrain.config.old_names import current_metric
from xlmtrain.runtime.failpoints import failpoint

log = logging.getLogger(__name__)

PHASE = "phase"
"""Key of the name of the phase in a record; all others are numbers."""


class MetricsWriter:
    """Writes the metrics of a run that is at ``step`` and was last evaluated at ``evaluated``, and has its console.

    Later records are dropped from the files; at step 0 all are, as they come from a start that saved no checkpoint.
    Metrics that cannot be written are left out, with one warning; they never end a run.
    """

    def __init__(self, directory: Path, step: int, evaluated: int) -> None:
        self.console = Console()
        self._path = directory / "metrics.jsonl"
        self._warned = False
        step = step or -1
        again = _drop_after(self._path, step, evaluated)
        self._stream = self._path.open("a", encoding="utf-8")
        _rename_older(directory / "tensorboard")
        # TensorBoard drops points from purge_step on. If the last step will be evaluated again, that includes this
        # step, whose other points are then added again.
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + (not again))
        for name, value in again.items():
            self._board.add_scalar(name, value, step)

    def scalars(self, step: int, values: dict[str, float], phase: str = "") -> None:
        """Write one record ``{"step": .., "train/loss": .., ..}``, and a point on each of TensorBoard's curves.

        ``phase``: name of the phase that the step was in, for the record.
        """
        with self._ignore_full_disk():
            failpoint("metrics")
            self._stream.write(json.dumps({"step": step, **({PHASE: phase} if phase else {}), **values}) + "\n")
            self._stream.flush()
        with self._ignore_full_disk():
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def text(self, step: int, name: str, markdown: str) -> None:
        """Write a text to TensorBoard."""
        with self._ignore_full_disk():
            self._board.add_text(name, markdown, step)

    def flush(self) -> None:
        """Hand TensorBoard's points to the system, before a checkpoint refers to them; records are there already."""
        with self._ignore_full_disk():
            self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        self.console.clear()
        with self._ignore_full_disk():
            self._stream.close()
        with self._ignore_full_disk():
            self._board.close()

    @contextlib.contextmanager
    def _ignore_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._warned:
                log.warning("metrics are missing from %s or TensorBoard: %s", self._path, error)
            self._warned = True


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a ``metrics.jsonl``, without lines that a crash truncated or the storage damaged."""
    records = []
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError):
            record = {current_metric(name): value for name, value in json.loads(line).items()}
            numbers = all(isinstance(record[name], (int, float)) for name in record.keys() - {PHASE})
            if type(record["step"]) is int and numbers:
                records.append(record)
    return records


def _drop_after(path: Path, step: int, evaluated: int) -> dict[str, float]:
    """Keep the records up to ``step``, and evaluations only up to ``evaluated``.

    Returns the remaining metrics of ``step`` if an evaluation of that step was dropped.
    """
    if not path.is_file():
        return {}
    records = [record for record in read_records(path) if record["step"] <= step]
    kept = [r for r in records if r["step"] <= evaluated or not any(key.startswith("valid/") for key in r)]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(temporary, path)
    last = [record for record in kept if record["step"] == step and len(kept) < len(records)]
    return {key: value for record in last for key, value in record.items() if key not in ("step", PHASE)}


def _rename_older(board: Path) -> None:
    """Rename the event files of earlier starts, so that TensorBoard reads them before the new one.

    It sorts them by name, which begins with the second they were created in; the clock may have been set back since, or
    be another machine's.
    """
    latest, prefix = int(time.time()), "events.out.tfevents."
    for path in sorted(board.glob(f"{prefix}[0-9]*"), reverse=True):
        second, dot, rest = path.name.removeprefix(prefix).partition(".")
        latest = min(int(second), latest - 1)
        path.rename(path.with_name(f"{prefix}{latest:010d}{dot}{rest}"))


class Console:
    """A progress line that is overwritten on a terminal and logged as a plain line elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def progress(self, line: str) -> None:
        """Show the progress line. Its last parts, divided by ``|``, are left out where the terminal is too narrow."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            while " | " in line and len(line) > width:
                line = line.rpartition(" | ")[0]
            print(f"\r\x1b[2K{line[:width]}", end="", file=sys.stderr, flush=True)
        else:
            log.info(line)

    def message(self, line: str) -> None:
        """Log a line that stays."""
        self.clear()
        log.info(line)

    def clear(self) -> None:
        """Remove the progress line from the terminal."""
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
