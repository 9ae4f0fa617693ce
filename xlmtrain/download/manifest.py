"""Record what an output directory holds and where it came from: ``downloads.json``.

``files`` has the size and SHA-256 of every file that was downloaded, by URL: a file without a published checksum is
compared with them the next time. ``texts`` has the size of every finished text, which is not made again, and -1 for
a path that was claimed but is not a finished text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from xlmtrain.download.fetch import DownloadRecord
from xlmtrain.errors import DataError, damage_as
from xlmtrain.runtime.atomic_io import json_object, write_json
from xlmtrain.runtime.lock import try_lock
from xlmtrain.runtime.output_paths import LOCK_FILE
from xlmtrain.runtime.typed_json import typed

MANIFEST = "downloads.json"


class Manifest:
    """The record of one output directory."""

    def __init__(self, directory: Path) -> None:
        """Read the record. Raises DataError if it is damaged."""
        self._directory, self._path = directory, directory / MANIFEST
        self._files: dict[str, DownloadRecord] = {}
        self._texts: dict[str, int] = {}
        if self._path.exists():
            with damage_as(DataError, f"{self._path}: damaged", "; remove it, or restore it from a copy"):
                content = json_object(self._path)
                self._files = typed(dict[str, DownloadRecord], content["files"], "files")
                self._texts = typed(dict[str, int], content["texts"], "texts")

    def file_record(self, url: str) -> DownloadRecord | None:
        """Return the record of the file that was last downloaded from ``url``."""
        return self._files.get(url)

    def add_file(self, url: str, record: DownloadRecord) -> None:
        """Record a verified download."""
        self._files[url] = record
        self._write()

    def forget_file(self, url: str) -> None:
        """Remove the record of a file, so that the next download is not compared with it."""
        self._files.pop(url, None)
        self._write()

    def claim(self, paths: Iterable[Path]) -> None:
        """Record that ``paths`` are going to be written.

        Raises DataError, and records nothing, if one of them is there already and was not downloaded.
        """
        new = [path for path in paths if self._name(path) not in self._texts]
        for path in new:
            if path.exists():
                raise DataError(f"{path}: exists already and was not downloaded; move it away, or take another output")
        if new:
            self._texts |= {self._name(path): -1 for path in new}
            self._write()

    def add_text(self, path: Path) -> None:
        """Record a finished text."""
        self._texts[self._name(path)] = path.stat().st_size
        self._write()

    def has_text(self, path: Path) -> bool:
        """Return whether ``path`` has the size with which it was finished."""
        return path.is_file() and self._texts.get(self._name(path)) == path.stat().st_size

    def release(self, path: Path) -> None:
        """Withdraw the claim of a path where nothing was written."""
        if not path.exists() and self._texts.pop(self._name(path), None) is not None:
            self._write()

    def _name(self, path: Path) -> str:
        return path.relative_to(self._directory).as_posix()

    def _write(self) -> None:
        files = {url: asdict(record) for url, record in sorted(self._files.items())}
        write_json(self._path, {"files": files, "texts": dict(sorted(self._texts.items()))})


@contextmanager
def exclusive_lock(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for this process; it is made, and removed with its lock if it is nothing else's afterwards.

    Raises DataError if another process downloads to it.
    """
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK_FILE
    with path.open("a", encoding="utf-8") as lock:
        if not try_lock(lock):
            raise DataError(f"output={directory}: another process is downloading to it")
        try:
            yield
        finally:
            if not (directory / MANIFEST).exists():  # refused before anything was downloaded
                path.unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    for made in new:
                        made.rmdir()
