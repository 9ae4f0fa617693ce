"""What an output directory holds and where it came from: ``downloads.json``.

``files`` has the size and SHA-256 of every file that was downloaded, by address: what a publisher gives no checksum
of is compared with them the next time. ``texts`` has the size of every finished text: those are not made again.
"""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from xlmtrain.download.fetch import Fetched
from xlmtrain.errors import DataError
from xlmtrain.runtime.atomic_io import write_json

LEDGER = "downloads.json"


class Ledger:
    """The record of one output directory; may be used by several threads."""

    def __init__(self, directory: Path) -> None:
        """Raises DataError if there is a damaged one."""
        self._path = directory / LEDGER
        self._lock = threading.Lock()
        self._files: dict[str, Fetched] = {}
        self._texts: dict[str, int] = {}
        if self._path.exists():
            try:
                content = json.loads(self._path.read_text(encoding="utf-8"))
                self._files = {url: Fetched(**values) for url, values in content["files"].items()}
                self._texts = {name: int(size) for name, size in content["texts"].items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{self._path}: damaged ({error}); remove it, or restore it from a copy") from None

    def known(self, url: str) -> Fetched | None:
        """What came from ``url`` the last time."""
        return self._files.get(url)

    def add_file(self, url: str, fetched: Fetched) -> None:
        """Record a verified download."""
        with self._lock:
            self._files[url] = fetched
            self._write()

    def forget(self, url: str) -> None:
        """What came from ``url`` was no good: nothing will be compared with it."""
        with self._lock:
            self._files.pop(url, None)
            self._write()

    def claim_text(self, path: Path) -> None:
        """Record that ``path`` is going to be written. Raises DataError if there is a file that was not downloaded."""
        if path.name not in self._texts:
            if path.exists():
                raise DataError(f"{path}: exists already and was not downloaded; move it away, or take another output")
            with self._lock:
                self._texts[path.name] = -1
                self._write()

    def add_text(self, path: Path) -> None:
        """Record a finished text."""
        with self._lock:
            self._texts[path.name] = path.stat().st_size
            self._write()

    def has_text(self, path: Path) -> bool:
        """Whether ``path`` is there as it was finished."""
        return path.is_file() and self._texts.get(path.name) == path.stat().st_size

    def _write(self) -> None:
        files = {url: asdict(fetched) for url, fetched in sorted(self._files.items())}
        write_json(self._path, {"files": files, "texts": dict(sorted(self._texts.items()))})


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for this process. Raises DataError if another one downloads to it."""
    with (directory / ".lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"output={directory}: another process is downloading to it") from None
        yield
