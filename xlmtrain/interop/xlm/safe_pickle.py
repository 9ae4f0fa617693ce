"""An interpreter for pickles of plain values, without ``pickle``: enough for the original XLM's binarized data.

A pickle is a program for a small stack machine. This one implements the few opcodes that arrays, text, numbers, dicts
and the original's Dictionary need. A class named in the file only ever becomes a :class:`_Global`; nothing is imported
or called because a file says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from math import prod
from pickletools import genops
from typing import IO, Any, cast

import numpy as np

MAX_STEPS = 1 << 24
"""Opcodes per pickle: enough for a vocabulary of 2 million, and a limit on the objects that a file can create."""
MAX_LINE = 1024
VIEWED_BYTES = 1 << 16
"""Longer byte strings are views of the file, shorter ones are copied."""

_DTYPES: dict[str, np.dtype] = {"u2": np.dtype("<u2"), "i4": np.dtype("<i4"), "i8": np.dtype("<i8")}


class ByteReader:
    """The file interface that ``genops`` reads from. Returns no more bytes than exist, whatever length is asked for."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._position = view, 0

    def read(self, size: int) -> bytes | memoryview:
        """Return the next ``size`` bytes, or as many as there are."""
        data = self._view[self._position : self._position + size]
        self._position += len(data)
        return data if len(data) > VIEWED_BYTES else bytes(data)

    def readline(self) -> bytes:
        """Return a line with its end. Raises ValueError if it has more than ``MAX_LINE`` bytes."""
        line = bytes(self._view[self._position : self._position + MAX_LINE])
        end = line.find(b"\n") + 1
        if not end:
            raise ValueError(f"a name of more than {MAX_LINE:,} characters")
        self._position += end
        return line[:end]

    def remaining(self) -> int:
        """Return the number of bytes not yet read."""
        return len(self._view) - self._position


class UnsafePickleError(ValueError):
    """The pickle needs something that plain values do not."""

    def __init__(self, what: str) -> None:
        super().__init__(f"asks for {what}, which has no place in such a file; it was refused and not executed")


_Global = Enum("_Global", ["DICTIONARY", "RECONSTRUCT", "NDARRAY", "DTYPE", "ENCODE"])
_GLOBALS = {
    "xlm.data.dictionary.Dictionary": _Global.DICTIONARY,
    "src.data.dictionary.Dictionary": _Global.DICTIONARY,
    "numpy.core.multiarray._reconstruct": _Global.RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": _Global.RECONSTRUCT,
    "numpy.ndarray": _Global.NDARRAY,
    "numpy.dtype": _Global.DTYPE,
    "_codecs.encode": _Global.ENCODE,  # protocol 2 stores bytes as Latin-1 text and a call that encodes them
}


class _DictionaryState(dict[str, Any]):
    """The attributes of a Dictionary."""


class _DType:
    """An array's type, whose byte order is set by BUILD."""

    def __init__(self, code: Any) -> None:
        if type(code) is not str or code not in _DTYPES:
            raise ValueError("an array in it is not of type uint16, int32 or int64")
        self.dtype, self.little = _DTYPES[code], False

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 8 or type(state[1]) is not str or state[1] != "<":
            raise ValueError("an array in it is not of plain little-endian numbers")
        self.little = True


class _Array:
    """An array, whose content is set by BUILD."""

    def __init__(self) -> None:
        self._array: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """Set the content; ``state``: version, shape, type, Fortran order, bytes."""
        if type(state) is not tuple or len(state) != 5:
            raise ValueError("damaged: an array in it is incomplete")
        _, shape, dtype, fortran_order, content = state
        if type(shape) is not tuple or len(shape) not in (1, 2) or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("an array in it has neither one dimension nor two")
        if type(dtype) is not _DType or not dtype.little or fortran_order is not False:
            raise ValueError("an array in it is not of plain little-endian numbers, row by row")
        if type(content) not in (bytes, memoryview) or len(content) != prod(shape) * dtype.dtype.itemsize:
            raise ValueError("damaged: an array in it does not have the bytes that its shape needs")
        self._array = np.ndarray(shape, dtype.dtype, content)

    def finished(self) -> np.ndarray:
        if self._array is None:
            raise ValueError("damaged: an array in it has no content")
        return self._array


_PUSH_ARGUMENT = {
    *("BININT", "BININT1", "BININT2", "LONG1"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSH_NEW = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME", "STOP"}


def opcodes(reader: ByteReader) -> Iterator[tuple[str, Any]]:
    """Yield name and argument of each opcode of the next pickle. Raises ValueError if it is damaged."""
    try:
        for number, (opcode, argument, _) in enumerate(genops(cast("IO[bytes]", reader))):
            if number == MAX_STEPS:
                raise ValueError(f"more than {MAX_STEPS:,} steps")
            yield opcode.name, argument
    except (ValueError, AttributeError) as error:  # genops decodes long text of Python 2, which a memoryview cannot
        raise ValueError(f"damaged, or no pickle of the original program: {error}") from None


def read_pickle(reader: ByteReader) -> Any:
    """Return the next object: numbers, text, bytes, tuples, dicts; a dict of attributes for a Dictionary.

    Arrays that are values of the outermost dict are read-only views of the file; other arrays stay unusable. Raises
    UnsafePickleError for anything else, and ValueError, TypeError, LookupError, AttributeError for damage.
    """
    value = _Unpickler().run(reader)
    if type(value) is not dict:
        return value
    return {key: inner.finished() if type(inner) is _Array else inner for key, inner in value.items()}


class _Unpickler:
    """Stack and memo of one pickle.

    The type of a value is checked before it is hashed, compared, printed or iterated, so deeply nested and shared
    structures cost no more than the opcodes that created them.
    """

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, reader: ByteReader) -> Any:
        """Return the object that the next pickle leaves on the stack."""
        for name, argument in opcodes(reader):
            self._step(name, argument)
        if len(self._stack) != 1 or self._marks:
            raise ValueError(f"damaged: its pickle ends with {len(self._stack)} values instead of one")
        return self._stack[0]

    def _step(self, name: str, argument: Any) -> None:
        push = self._stack.append
        if name in _PUSH_ARGUMENT:
            push(argument)
        elif name in _PUSH_CONSTANT:
            push(_PUSH_CONSTANT[name])
        elif name in _PUSH_NEW:
            push(_PUSH_NEW[name]())
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            push(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name == "TUPLE":
            push(tuple(self._pop_to_mark()))
        elif name in _TUPLES:
            push(tuple(self._pop(_TUPLES[name])))
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(self._pop(2) if name == "SETITEM" else self._pop_to_mark())
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            push(self._global(argument.split(" ", 1) if name == "GLOBAL" else self._pop(2)))
        elif name in ("REDUCE", "NEWOBJ"):
            push(self._create(name, *self._pop(2)))
        elif name == "BUILD":
            self._build(*self._pop(1))
        elif name not in _IGNORED:
            raise UnsafePickleError(f"the pickle operation {name}")

    def _pop(self, count: int) -> list[Any]:
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise ValueError("damaged: its pickle takes more from the stack than there is")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _pop_to_mark(self) -> list[Any]:
        return self._pop(len(self._stack) - self._marks.pop())

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError("damaged: an item is set in what is no dict, or has no value")
        for key, value in zip(items[::2], items[1::2]):
            if type(key) not in (int, str):
                raise ValueError("a dict in it has keys that are neither numbers nor text")
            target[key] = value

    def _global(self, parts: list[Any]) -> _Global:
        if any(type(part) is not str for part in parts):
            raise ValueError("damaged: a name in it is no text")
        if (name := ".".join(parts)) not in _GLOBALS:
            raise UnsafePickleError(name[:100])
        return _GLOBALS[name]

    def _create(self, opcode: str, what: Any, arguments: Any) -> Any:
        """Return the object for a call ``what(*arguments)``."""
        if type(what) is _Global and type(arguments) is tuple:
            if opcode == "NEWOBJ" and what is _Global.DICTIONARY and not arguments:
                return _DictionaryState()
            if opcode == "REDUCE" and what is _Global.RECONSTRUCT and arguments[:1] == (_Global.NDARRAY,):
                return _Array()
            if opcode == "REDUCE" and what is _Global.DTYPE and len(arguments) == 3:
                return _DType(arguments[0])
            if opcode == "REDUCE" and what is _Global.ENCODE and len(arguments) == 2:
                text, encoding = arguments
                if type(text) is str and type(encoding) is str and encoding == "latin1":
                    return text.encode(encoding)
        raise UnsafePickleError("a call that makes neither an array nor a Dictionary")

    def _build(self, state: Any) -> None:
        target = self._stack[-1]
        if type(target) in (_Array, _DType):
            target.build(state)
        elif type(target) is _DictionaryState and type(state) is dict and all(type(key) is str for key in state):
            target.update(state)
        else:
            raise UnsafePickleError("a state for what is neither an array nor a Dictionary")
