"""Where figures go: ``metrics.jsonl``, TensorBoard, the log and the terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from xlmtrain.runtime import faults

log = logging.getLogger(__name__)


class MetricsWriter:
    """Writes the figures of a run that stands at ``step``; what the files hold of later steps is dropped.

    Of a run at step 0 they hold nothing yet: what is there was left by a start that saved no checkpoint.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self._path = directory / "metrics.jsonl"
        step = step or -1
        _drop_after(self._path, step)
        self._stream = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One record: ``{"step": .., "train/loss": .., ..}``, and a point on each of TensorBoard's curves."""
        faults.reach("metrics")
        self._stream.write(json.dumps({"step": step, **values}) + "\n")
        self._stream.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def text(self, step: int, name: str, markdown: str) -> None:
        """A text on TensorBoard."""
        self._board.add_text(name, markdown, step)

    def flush(self) -> None:
        """Hand everything to the system, as a checkpoint is about to say that it happened."""
        self._stream.flush()
        self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        self._stream.close()
        self._board.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``, without a line that a crash cut short."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def _drop_after(path: Path, step: int) -> None:
    """Keep the records up to ``step``."""
    if not path.is_file():
        return
    kept = [json.dumps(record) + "\n" for record in read_records(path) if record["step"] <= step]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


class Console:
    """One line that is written over on a terminal, a plain line each time in a log."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def progress(self, line: str) -> None:
        """Show how far the run is."""
        if self._live:
            print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)
        else:
            log.info(line)

    def message(self, line: str) -> None:
        """Say something that stays."""
        self.clear()
        log.info(line)

    def clear(self) -> None:
        """Take the progress line off the terminal."""
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
