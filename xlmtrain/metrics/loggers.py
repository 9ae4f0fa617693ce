"""Where figures go: ``metrics.jsonl``, TensorBoard, the log and the terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from xlmtrain.config.old_names import current_metric
from xlmtrain.runtime.failpoints import failpoint

log = logging.getLogger(__name__)

_EVENTS = "events.out.tfevents."


class MetricsWriter:
    """Writes the figures of a run that stands at ``step`` and was last evaluated at ``evaluated``; what the files hold
    of later is dropped.

    Of a run at step 0 they hold nothing yet: what is there was left by a start that saved no checkpoint. Figures are
    not worth a run: what cannot be written is left out, with one warning.
    """

    def __init__(self, directory: Path, step: int, evaluated: int) -> None:
        self._path = directory / "metrics.jsonl"
        self._mute = False
        step = step or -1
        again = _drop_after(self._path, step, evaluated)
        self._stream = self._path.open("a", encoding="utf-8")
        _make_older(directory / "tensorboard")
        # From purge_step on the curves are cut: there, too, if the last step is evaluated anew, whose other figures are
        # then drawn again.
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + (not again))
        for name, value in again.items():
            self._board.add_scalar(name, value, step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One record: ``{"step": .., "train/loss": .., ..}``, and a point on each of TensorBoard's curves."""
        with self._as_far_as_possible():
            failpoint("metrics")
            self._stream.write(json.dumps({"step": step, **values}) + "\n")
            self._stream.flush()
        with self._as_far_as_possible():
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def text(self, step: int, name: str, markdown: str) -> None:
        """A text on TensorBoard."""
        with self._as_far_as_possible():
            self._board.add_text(name, markdown, step)

    def flush(self) -> None:
        """Hand everything to the system, as a checkpoint is about to say that it happened."""
        with self._as_far_as_possible():
            self._stream.flush()
        with self._as_far_as_possible():
            self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        with self._as_far_as_possible():
            self._stream.close()
        with self._as_far_as_possible():
            self._board.close()

    @contextlib.contextmanager
    def _as_far_as_possible(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._mute:
                log.warning("figures are missing from %s or TensorBoard: %s", self._path, error)
            self._mute = True


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``, without a line that a crash cut short."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            records.append({current_metric(name): value for name, value in json.loads(line).items()})
    return records


def _drop_after(path: Path, step: int, evaluated: int) -> dict[str, float]:
    """Keep the records up to ``step``, and of evaluations those up to ``evaluated``.

    If one was dropped from ``step`` itself, the figures that are left there.
    """
    if not path.is_file():
        return {}
    records = [record for record in read_records(path) if record["step"] <= step]
    kept = [record for record in records if record["step"] <= evaluated or not _is_evaluation(record)]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(temporary, path)
    if len(kept) == len(records):
        return {}
    return {key: value for record in kept if record["step"] == step for key, value in record.items() if key != "step"}


def _make_older(board: Path) -> None:
    """Have TensorBoard read the files that are there before the one that is going to be written.

    It goes by their names, which begin with the second they were made in: the clock may have been put back since, or be
    another machine's.
    """
    latest = int(time.time())
    for path in sorted(board.glob(f"{_EVENTS}[0-9]*"), reverse=True):
        second, dot, rest = path.name.removeprefix(_EVENTS).partition(".")
        latest = min(int(second), latest - 1)
        path.rename(path.with_name(f"{_EVENTS}{latest:010d}{dot}{rest}"))


def _is_evaluation(record: dict[str, Any]) -> bool:
    return any(key.startswith("valid/") for key in record)


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
