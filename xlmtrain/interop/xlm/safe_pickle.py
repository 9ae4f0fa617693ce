"""Pickles of plain values, carried out without ``pickle``: what the ancestor's binarized data is made of.

A pickle is a program for a small stack machine. The one here knows the few of its operations that arrays, text,
numbers, dicts and the ancestor's Dictionary need, and does them itself: a name in the file only ever becomes a mark,
and nothing that the file says is imported or called.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from math import prod
from pickletools import genops
from typing import IO, Any, cast

import numpy as np

MAX_STEPS = 1 << 24
"""In one pickle: enough for a vocabulary of 2 million, and a bound on the objects that a file can ask for."""
MAX_LINE = 1024
VIEWED_BYTES = 1 << 16
"""Anything longer is looked at where it is in the file instead of being copied."""

_DTYPES: dict[str, np.dtype] = {"u2": np.dtype("<u2"), "i4": np.dtype("<i4"), "i8": np.dtype("<i8")}


class Source:
    """Bytes as ``genops`` reads them. Reading never gives more than there is, whatever length the file claims."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._position = view, 0

    def read(self, size: int) -> bytes | memoryview:
        """The next ``size`` bytes, or as many as there are."""
        data = self._view[self._position : self._position + size]
        self._position += len(data)
        return data if len(data) > VIEWED_BYTES else bytes(data)

    def readline(self) -> bytes:
        """A line with its end; raises ValueError if it is longer than any name."""
        line = bytes(self._view[self._position : self._position + MAX_LINE])
        end = line.find(b"\n") + 1
        if not end:
            raise ValueError(f"a name of more than {MAX_LINE:,} characters")
        self._position += end
        return line[:end]

    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._view) - self._position


class Refused(ValueError):
    """The pickle asks for something that plain values do not need."""

    def __init__(self, what: str) -> None:
        super().__init__(f"asks for {what}, which has no place in such a file; it was refused and not executed")


class _Global(Enum):
    """What a pickle may name. These are marks, not the things themselves."""

    DICTIONARY = auto()
    RECONSTRUCT = auto()
    NDARRAY = auto()
    DTYPE = auto()
    ENCODE = auto()


_GLOBALS = {
    "xlm.data.dictionary.Dictionary": _Global.DICTIONARY,
    "src.data.dictionary.Dictionary": _Global.DICTIONARY,
    "numpy.core.multiarray._reconstruct": _Global.RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": _Global.RECONSTRUCT,
    "numpy.ndarray": _Global.NDARRAY,
    "numpy.dtype": _Global.DTYPE,
    "_codecs.encode": _Global.ENCODE,  # protocol 2 has no bytes: they are Latin-1 text, to be encoded
}


class _Attributes(dict[str, Any]):
    """The attributes of a Dictionary."""


class _DType:
    """An array's type; its byte order comes after it was made."""

    def __init__(self, code: Any) -> None:
        if type(code) is not str or code not in _DTYPES:
            raise ValueError("an array in it is not of type uint16, int32 or int64")
        self.code, self.little = code, False

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 8 or type(state[1]) is not str or state[1] != "<":
            raise ValueError("an array in it is not of plain little-endian numbers")
        self.little = True


class _Array:
    """An array; its content comes after it was made."""

    def __init__(self) -> None:
        self._array: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """``state``: version, shape, type, whether columns come first, bytes."""
        if type(state) is not tuple or len(state) != 5:
            raise ValueError("damaged: an array in it is not whole")
        _, shape, dtype, by_column, content = state
        if type(shape) is not tuple or len(shape) not in (1, 2) or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("an array in it has neither one dimension nor two")
        if type(dtype) is not _DType or not dtype.little or by_column is not False:
            raise ValueError("an array in it is not of plain little-endian numbers, row by row")
        if type(content) not in (bytes, memoryview) or len(content) != prod(shape) * _DTYPES[dtype.code].itemsize:
            raise ValueError("damaged: an array in it does not have the bytes that its shape needs")
        self._array = np.ndarray(shape, _DTYPES[dtype.code], content)

    def finished(self) -> np.ndarray:
        if self._array is None:
            raise ValueError("damaged: an array in it has no content")
        return self._array


_PUSH = {"BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_PUSH_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def steps(source: Source) -> Iterator[tuple[str, Any]]:
    """Operation and argument of each step of the next pickle in ``source``; raises ValueError if it is damaged."""
    try:
        for number, (opcode, argument, _) in enumerate(genops(cast("IO[bytes]", source))):
            if number == MAX_STEPS:
                raise ValueError(f"more than {MAX_STEPS:,} steps")
            yield opcode.name, argument
    except (ValueError, AttributeError) as error:  # genops decodes long text of Python 2 as bytes, which a view is not
        raise ValueError(f"damaged, or no pickle of the original program: {error}") from None


def read_pickle(source: Source) -> Any:
    """The next object in ``source``: numbers, text, bytes, tuples, dicts; a dict of attributes for a Dictionary.

    Arrays that are values of the outermost dict are read-only views of ``source``; no others are of use to anyone.
    Raises Refused for anything else, and ValueError, TypeError, LookupError, AttributeError for damage.
    """
    value = _Machine().run(source)
    if type(value) is not dict:
        return value
    return {key: inner.finished() if type(inner) is _Array else inner for key, inner in value.items()}


class _Machine:
    """The stack and the memo that one pickle works on.

    Values are never hashed, compared, printed or walked through before their type is known to be plain, so neither
    deep nor shared structures cost more than the steps that made them.
    """

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, source: Source) -> Any:
        """The object that the next pickle in ``source`` leaves."""
        for name, argument in steps(source):
            self._step(name, argument)
        if len(self._stack) != 1 or self._marks:
            raise ValueError(f"damaged: its pickle ends with {len(self._stack)} values instead of one")
        return self._stack[0]

    def _step(self, name: str, argument: Any) -> None:
        push = self._stack.append
        if name in _PUSH or name in _PUSH_BYTES:
            push(argument)
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            push(self._memo[argument])
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            push({} if name == "EMPTY_DICT" else [])
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
            push(self._make(name, *self._pop(2)))
        elif name == "BUILD":
            self._build(*self._pop(1))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise Refused(f"the pickle operation {name}")

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
            raise Refused(name[:100])
        return _GLOBALS[name]

    def _make(self, operation: str, what: Any, arguments: Any) -> Any:
        """What the pickle would call ``what(*arguments)`` for."""
        if type(what) is _Global and type(arguments) is tuple:
            if operation == "NEWOBJ" and what is _Global.DICTIONARY and not arguments:
                return _Attributes()
            if operation == "REDUCE" and what is _Global.RECONSTRUCT and arguments[:1] == (_Global.NDARRAY,):
                return _Array()
            if operation == "REDUCE" and what is _Global.DTYPE and len(arguments) == 3:
                return _DType(arguments[0])
            if operation == "REDUCE" and what is _Global.ENCODE and len(arguments) == 2:
                text, encoding = arguments
                if type(text) is str and type(encoding) is str and encoding == "latin1":
                    return text.encode(encoding)
        raise Refused("a call that makes neither an array nor a Dictionary")

    def _build(self, state: Any) -> None:
        target = self._stack[-1]
        if type(target) in (_Array, _DType):
            target.build(state)
        elif type(target) is _Attributes and type(state) is dict and all(type(key) is str for key in state):
            target.update(state)
        else:
            raise Refused("a state for what is neither an array nor a Dictionary")
