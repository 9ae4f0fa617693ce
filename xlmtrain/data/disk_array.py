"""The numbers of a file, read when they are asked for: what is read of it, the system's page cache keeps for every
process.

The file is read, not mapped. What the storage cannot give is an exception then, and the run can try again, or save
itself; on a mapped page it would be a bus error, which ends the process.
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

PAUSES = (0.2, 1.0)
"""Seconds before the second and the third try of a read."""


def data_error(error: DataError | None) -> DataError:
    """What each process raises once all of them know that one cannot have its data: its own ``error``, if any."""
    return error or DataError("another process cannot have its data, and says why")


class DiskArray:
    """The numbers of a file, (n,). An index gives a number, a slice an array; negative ones count from the end."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        """Raises DataError if the file cannot be opened."""
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
        """Raises DataError, after three tries, if the storage does not give what is there."""
        if isinstance(index, slice):
            begin, end, step = index.indices(self._length)
            assert step == 1, "numbers are read as they stand"
            return self.joined([begin], [max(end, begin)])
        place = index if index >= 0 else index + self._length
        if not 0 <= place < self._length:
            raise IndexError(index)
        return int(self.joined([place], [place + 1])[0])

    def joined(self, begins: Sequence[int], ends: Sequence[int]) -> np.ndarray:
        """Several stretches, the numbers ``begin`` to ``end - 1`` of each, one after the other in one array.

        Raises DataError like an index.
        """
        for pause in (*PAUSES, None):
            try:
                failpoint("read")
                return np.frombuffer(self._content(begins, ends), self.dtype)
            except OSError as error:
                if pause is None:
                    raise DataError(
                        f"{self.path}: {error.strerror}, three times; mend the storage, or put the file back, and give "
                        "the same command again"
                    ) from error
                log.warning("%s: %s; tried again in %.1f s", self.path, error.strerror, pause)
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _content(self, begins: Sequence[int], ends: Sequence[int]) -> bytes:
        size = self.dtype.itemsize
        content = b"".join(
            [os.pread(self._file, (end - begin) * size, begin * size) for begin, end in zip(begins, ends)]
        )
        if len(content) == (sum(ends) - sum(begins)) * size:
            return content
        return b"".join([self._stretch(begin * size, end * size) for begin, end in zip(begins, ends)])

    def _stretch(self, begin: int, end: int) -> bytes:
        """The bytes ``begin`` to ``end - 1``, which come in parts if they are gigabytes."""
        content = b""
        while begin + len(content) < end:
            if not (more := os.pread(self._file, end - begin - len(content), begin + len(content))):
                raise OSError(errno.EIO, f"cannot be read: it ends before byte {end}")
            content += more
        return content
