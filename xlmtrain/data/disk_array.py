"""Arrays that stay on disk and are read on demand.

Files are read with ``pread``, not memory-mapped: a storage error then raises an exception, which can be retried, where
a mapped page would end the process with a bus error.
"""

from __future__ import annotations

import errno
import logging
import os
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from xlmtrain.errors import DataError
from xlmtrain.runtime.failpoints import failpoint

log = logging.getLogger(__name__)

RETRY_DELAYS = (0.2, 1.0)
"""Seconds before the second and the third attempt of a read."""


def data_error(error: DataError | None) -> DataError:
    """Return the error that a process raises when the data of any process is lost: its own ``error``, if it has one."""
    return error or DataError("another process cannot read its data; its message says why")


class DiskArray:
    """One-dimensional array in a file. An index returns a number, a slice an array; negative ones count from the end.

    Reads raise DataError after three failed attempts.
    """

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        """Open the file; raises DataError if that fails."""
        self.path, self.dtype = path, dtype
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
        weakref.finalize(self, os.close, self._file)
        self._length = os.fstat(self._file).st_size // dtype.itemsize

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> np.ndarray: ...

    def __getitem__(self, index: int | slice) -> int | np.ndarray:
        place = range(self._length)[index]
        if isinstance(place, int):
            return int(self.gather_spans([place], [place + 1])[0])
        assert place.step == 1, "slices have step 1"
        return self.gather_spans([place.start], [max(place.start, place.stop)])

    def gather_spans(self, begins: Sequence[int], ends: Sequence[int]) -> np.ndarray:
        """Return the concatenation of several spans; a span is ``begin`` to ``end - 1``."""
        size = self.dtype.itemsize
        if len(begins) and not (min(begins) >= 0 and max(ends) <= self._length):  # before so much memory is asked for
            raise DataError(
                f"{self.path}: has {self._length} numbers, not all that are asked for; prepare the data again"
            )
        for pause in (*RETRY_DELAYS, None):
            try:
                failpoint("read")
                spans = [self._read_bytes(begin * size, end * size) for begin, end in zip(begins, ends)]
                return np.frombuffer(b"".join(spans), self.dtype)
            except OSError as error:
                if pause is None:
                    raise DataError(
                        f"{self.path}: {error.strerror}, three times; fix the storage, or put the file back, and give "
                        "the same command again"
                    ) from error
                log.warning("%s: %s; tried again in %.1f s", self.path, error.strerror, pause)
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _read_bytes(self, begin: int, end: int) -> bytes:
        """Return the bytes ``begin`` to ``end - 1``, for which the system may need several reads."""
        content = os.pread(self._file, end - begin, begin)
        while begin + len(content) < end:
            if not (more := os.pread(self._file, end - begin - len(content), begin + len(content))):
                raise OSError(errno.EIO, f"cannot be read: it ends before byte {end}")
            content += more
        return content
