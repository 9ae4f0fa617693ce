"""Logging: the main process to the terminal and the run's log file, the others only warnings to the terminal."""

from __future__ import annotations

import logging
import sys
from pathlib import Path


def set_up_logging(rank: int) -> None:
    """Send this package's log to the terminal only, replacing the handlers of an earlier run of a sweep."""
    logger = logging.getLogger("xlmtrain")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False
    _add(logging.StreamHandler(sys.stderr), "" if rank == 0 else f"[rank {rank}] ")


def log_to_file(path: Path) -> None:
    """Append the log to ``path`` as well."""
    _add(_File(path, encoding="utf-8"))


def _add(handler: logging.Handler, prefix: str = "") -> None:
    handler.setFormatter(_Formatter(f"{prefix}%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    logging.getLogger("xlmtrain").addHandler(handler)


class _Formatter(logging.Formatter):
    """Write the level of warnings and errors before their message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname}: {record.message}"
        return super().formatMessage(record)


class _File(logging.FileHandler):
    """A log file that drops what it cannot write, with one message on the terminal."""

    _mute = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._mute:
            print(f"{self.baseFilename}: lines are missing ({sys.exc_info()[1]})", file=sys.stderr)
        self._mute = True
