"""The ancestor's two kinds of ``.pth`` file, read without unpickling: nothing that a file asks for is executed.

A checkpoint goes through torch's weights-only loader. A file of binarized data holds a class of the ancestor's, and a
version of pickle, that this loader refuses; it goes through :mod:`xlmtrain.interop.xlm.safe_pickle`. Each refuses what it
does not know, and there is no second attempt. Safe to read is not the same as true: a file may still hold any numbers.
"""

from __future__ import annotations

import mmap
import re
import struct
import warnings
import zipfile
from collections import deque
from pathlib import Path
from typing import Any

import torch

from xlmtrain.errors import CheckpointError, DataError
from xlmtrain.interop.xlm.safe_pickle import Refused, Source, read_pickle, steps

MAX_MEMBERS = 10_000
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


class Ignored:
    """What stands in for numpy's classes in a checkpoint: takes any arguments and state, and keeps none."""

    __slots__ = ()

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors on the CPU and plain values; numpy's values are :class:`Ignored`.

    Raises CheckpointError if the file is missing, damaged, no checkpoint, or asks for anything else.
    """
    try:
        source, count = _open(path)
        for _ in range(count):  # its names and lengths are within bounds: torch takes hours to refuse a name of a MB
            deque(steps(source), maxlen=0)
        with warnings.catch_warnings(), torch.serialization.safe_globals([(Ignored, name) for name in _NUMPY]):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # on bytes that nobody vouches for, torch raises whatever it trips over
        raise CheckpointError(f"{path}: {_reason(error)}") from None
    if type(content) is not dict:
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def read_data_file(path: Path) -> dict[str, Any]:
    """The content of a file of binarized data: ``dico`` (the Dictionary's attributes), ``positions``, ``sentences``
    and ``unk_words``, as far as they are there.

    Arrays are read-only views of the file. Raises DataError if the file is missing, damaged, or asks for anything
    besides arrays of integers and a Dictionary.
    """
    try:
        content = _read_pickles(_open(path)[0])
    except Exception as error:  # a damaged pickle can trip over anything; the file alone decides what
        raise DataError(f"{path}: {_reason(error)}") from None
    if type(content) is not dict:
        raise DataError(f"{path}: holds a {type(content).__name__}, not binarized data")
    return content


def _open(path: Path) -> tuple[Source, int]:
    """The pickles in a file, and how many torch puts there: one in a zip archive, five in a row before 1.6."""
    if not path.is_file():
        raise ValueError("is a directory" if path.is_dir() else "no such file")
    with path.open("rb") as file:
        start = file.read(8)
        if not start:
            raise ValueError("is empty")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if start.startswith(b"PK\x03\x04"):
        return Source(memoryview(mapped)[_pickle_in_archive(path, mapped)]), 1
    if start.startswith(b"\x80"):
        return Source(memoryview(mapped)), 5
    raise ValueError(f"begins with {start!r}, so it is no .pth file; was something else saved under its name?")


def _check_archive(path: Path) -> list[zipfile.ZipInfo]:
    """The members of an archive as torch writes it: not compressed, no larger than the file, each with its checksum."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise ValueError(f"an archive of {len(members):,} members, more than {MAX_MEMBERS:,}")
        if len({member.filename for member in members}) < len(members):
            raise ValueError("an archive in which a name occurs twice")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                raise ValueError(f"{member.filename[:80]!r} in it is compressed, which torch never does")
            if member.flag_bits & 1:
                raise ValueError(f"{member.filename[:80]!r} in it is encrypted")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its members are larger than the file")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"damaged: {damaged[:80]!r} in it does not have its checksum")
    return members


def _pickle_in_archive(path: Path, mapped: mmap.mmap) -> slice:
    """Where in the file the one pickle is."""
    pickles = [member for member in _check_archive(path) if member.filename.endswith(".pkl")]
    if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
        raise ValueError(f"an archive with {len(pickles)} pickles; data of the original program has one, data.pkl")
    # The local header: 26 bytes, the lengths of the name and of the extra field, these two, then the content.
    offset = pickles[0].header_offset
    start = offset + 30 + sum(struct.unpack_from("<HH", mapped, offset + 26))
    return slice(start, start + pickles[0].file_size)


def _read_pickles(source: Source) -> Any:
    """The object in a pickle, or in the five pickles that torch wrote before 1.6: a magic number, the version, the
    writer's platform, the object, the keys of the storages that follow (of which data has none)."""
    content = read_pickle(source)
    if type(content) is int and content == _LEGACY_MAGIC:
        version, _, content, storages = (read_pickle(source) for _ in range(4))
        if type(version) is not int or version != _LEGACY_VERSION or type(storages) is not list:
            raise ValueError("not as torch wrote files before 1.6")
    if source.left():
        raise ValueError(f"{source.left():,} bytes follow the end of its pickle")
    return content


def _reason(error: Exception) -> str:
    """One line on why a file was refused; what it quotes of the file is cut, and without control characters."""
    message = str(error)
    if found := re.search(r"GLOBAL (\S+)", message):  # in torch's words
        message = str(Refused(found[1][:100]))
    elif found := re.search(r"WeightsUnpickler error:\s*(.*)", message):
        message = f"refused, and nothing in it executed: {found[1]}"
    elif type(error) not in (ValueError, Refused):
        message = f"damaged, or not of the original program ({type(error).__name__}: {message.strip()}"
        message = message.partition("\n")[0][:200] + ")"
    return re.sub(r"[^ -~]", "?", message)[:300]
