"""Both kinds of ``.pth`` file of the original XLM, read without unpickling: no code in a file is ever executed.

Checkpoints that ask for tensors and plain values alone go through torch's weights-only loader. Binarized data contains
a class of the original's and a version of pickle that this loader refuses, and goes through
:mod:`xlmtrain.interop.xlm.safe_pickle`. Each refuses what it does not know; there is no fallback. The numbers in a file
are not verified: a safe file may still hold any values.
"""

from __future__ import annotations

import mmap
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from xlmtrain.errors import CheckpointError, DataError
from xlmtrain.interop.xlm.safe_pickle import ByteReader, UnsafePickleError, check_checkpoint, opcodes, read_pickle
from xlmtrain.text.vocab import SPECIALS, Vocab

MAX_MEMBERS = 10_000
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


class Ignored:
    """Placeholder for numpy's classes in a checkpoint: accepts any arguments and state, and keeps none."""

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
    """Read a checkpoint: tensors on the CPU and plain values; numpy's values become :class:`Ignored`.

    Raises CheckpointError if the file is missing, damaged, not a checkpoint, or needs any other class.
    """
    try:
        reader, count = _open(path)
        for _ in range(count):  # bounds every name and length: torch needs hours to refuse a name of 1 MB
            check_checkpoint(opcodes(reader))
        with warnings.catch_warnings(), torch.serialization.safe_globals([(Ignored, name) for name in _NUMPY]):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # torch can raise any error on untrusted bytes
        raise CheckpointError(f"{path}: {_reason(error)}") from None
    if not isinstance(content, dict):  # a model's state is an OrderedDict
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return dict(content)


def read_data_file(path: Path) -> dict[str, Any]:
    """Read a file of binarized data: a dict with ``dico`` (the Dictionary's attributes), ``positions``, ``sentences``.

    Arrays are read-only views of the file. Raises DataError if the file is missing, damaged, or needs a class other
    than arrays of integers and the Dictionary.
    """
    try:
        content = _read_pickles(_open(path)[0])
    except Exception as error:  # a damaged pickle can raise any error
        raise DataError(f"{path}: {_reason(error)}") from None
    if type(content) is not dict:
        raise DataError(f"{path}: holds a {type(content).__name__}, not binarized data")
    return content


def dictionary_vocab(id2word: Any, counts: Any) -> Vocab:
    """Return the vocabulary of the original's Dictionary; words without a count get 0. Raises ValueError for damage."""
    if type(id2word) is not dict or type(counts) is not dict:
        raise ValueError("its dictionary is incomplete")
    if id2word.keys() != set(range(len(id2word))):
        raise ValueError(f"the ids of its {len(id2word)} words are not 0 to {len(id2word) - 1}")
    words = [id2word[i] for i in range(len(id2word))]
    if not all(type(word) is str for word in words) or len(set(words)) < len(words):
        raise ValueError("a word is there twice, or is not text")
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise ValueError(f"its first {len(SPECIALS)} words are not {SPECIALS[0]} to {SPECIALS[-1]}")
    entries = [(word, counts.get(word, 0)) for word in words[len(SPECIALS) :]]
    if odd := [word for word, count in entries if type(count) is not int or not 0 <= count < 1 << 63]:
        raise ValueError(f"the count of {odd[0][:40]!r} is not a number from 0 to 2**63 - 1")
    return Vocab(entries)


def _open(path: Path) -> tuple[ByteReader, int]:
    """Return a reader of the file's pickles and their number: one in a zip archive, five before torch 1.6."""
    if not path.is_file():
        raise ValueError("is a directory" if path.is_dir() else "no such file")
    with path.open("rb") as file:
        start = file.read(8)
        if not start:
            raise ValueError("is empty")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if start.startswith(b"PK\x03\x04"):
        return ByteReader(memoryview(mapped)[_pickle_in_archive(path, mapped)]), 1
    if start.startswith(b"\x80"):
        return ByteReader(memoryview(mapped)), 5
    raise ValueError(f"begins with {start!r}, so it is no .pth file; was something else saved under its name?")


def _pickle_in_archive(path: Path, mapped: mmap.mmap) -> slice:
    """Return the position of the pickle ``data.pkl`` in the file.

    Raises ValueError unless all members are uncompressed, within the file, and match their checksums.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise ValueError(f"an archive of {len(members):,} members, more than {MAX_MEMBERS:,}")
        if len({member.filename for member in members}) < len(members):
            raise ValueError("an archive in which a name occurs twice")
        for member in members:
            plain = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
            if not plain or member.flag_bits & 1:
                raise ValueError(f"{member.filename[:80]!r} in it is compressed or encrypted, which torch never does")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its members are larger than the file")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"damaged: {damaged[:80]!r} in it does not have its checksum")
    pickles = [member for member in members if member.filename.endswith(".pkl")]
    if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
        raise ValueError(f"an archive with {len(pickles)} pickles; data of the original XLM has one, data.pkl")
    # Local header: 26 bytes, length of the name, length of the extra field, name, extra field; then the content.
    offset = pickles[0].header_offset
    start = offset + 30 + sum(struct.unpack_from("<HH", mapped, offset + 26))
    return slice(start, start + pickles[0].file_size)


def _read_pickles(reader: ByteReader) -> Any:
    """Return the object in a pickle, or the fourth of the five pickles that torch wrote before 1.6.

    These are: magic number, version, platform, object, keys of the storages that follow (none for data).
    """
    content = read_pickle(reader)
    if type(content) is int and content == _LEGACY_MAGIC:
        version, _, content, storages = (read_pickle(reader) for _ in range(4))
        if type(version) is not int or version != _LEGACY_VERSION or type(storages) is not list:
            raise ValueError("not as torch wrote files before 1.6")
    if reader.remaining():
        raise ValueError(f"{reader.remaining():,} bytes follow the end of its pickle")
    return content


def _reason(error: Exception) -> str:
    """Return one line on why a file was refused. Quotes of the file are cut, control characters replaced."""
    message = str(error)
    if found := re.search(r"GLOBAL (\S+)", message):  # torch's message
        message = str(UnsafePickleError(found[1][:100]))
    elif found := re.search(r"WeightsUnpickler error:\s*(.*)", message):
        message = f"refused, and nothing in it executed: {found[1]}"
    elif type(error) not in (ValueError, UnsafePickleError):
        first = message.strip().partition("\n")[0][:150]
        message = f"damaged, or not of the original XLM ({type(error).__name__}: {first})"
    return re.sub(r"[^ -~]", "?", message)[:300]
