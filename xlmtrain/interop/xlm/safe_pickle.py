"""An interpreter for pickles of plain values, without ``pickle``: enough for the original XLM's binarized data.

A pickle is a program for a small stack machine. This one implements the few opcodes that arrays, text, numbers, dicts
and the original's Dictionary need. A call that the file asks for becomes a :class:`Call`, a record of the request;
nothing is imported or called because a file says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import prod
from pickletools import genops
from typing import IO, Any, cast

import numpy as np

MAX_STEPS = 1 << 24
"""Opcodes per pickle: enough for a vocabulary of 2 million, and a limit on the objects that a file can create."""
MAX_LINE = 1024
MAX_VALUES = 64
"""Values of the outermost dict, each of which may be an array of the same long text; the original has four."""
VIEWED_BYTES = 1 << 16
"""Longer byte strings are views of the file, shorter ones are copied."""

_DICTIONARY = frozenset({"xlm.data.dictionary.Dictionary", "src.data.dictionary.Dictionary"})
_RECONSTRUCT = frozenset({"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"})
_DTYPE = "numpy.dtype"
_ENCODE = "_codecs.encode"  # protocol 2 stores bytes as Latin-1 text and a call that encodes them
_NAMES = _DICTIONARY | _RECONSTRUCT | {"numpy.ndarray", _DTYPE, _ENCODE}
_TENSOR_PARTS = re.compile(
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.nn\.parameter Parameter"
    r"|numpy(\._?core\.multiarray)? (_reconstruct|scalar|ndarray|dtype)"
)
_STORAGE = re.compile(r"torch [A-Za-z0-9]+Storage")
_MUST_FOLLOW = {
    "OrderedDict": ({"EMPTY_TUPLE"}, {"REDUCE"}),
    "encode": ({"text", "number", "latin1"}, {"latin1"}, {"TUPLE2"}, {"REDUCE"}),
    "storage": ({"number"},),
}
"""Name -> the operations that must follow it. An OrderedDict is made empty; ``encode`` gets a text and latin1; a
storage is named by a number, since torch would find the same bytes under other spellings and read them again.
"""
MAX_STATES = 32
"""Objects of a checkpoint that may get a state, which may be a copy of a large dict: weights and numpy's arrays."""
_NUMBERS: dict[str, np.dtype[Any]] = {"u2": np.dtype("<u2"), "i4": np.dtype("<i4"), "i8": np.dtype("<i8")}
_PUSH_ARGUMENT = {
    *("BININT", "BININT1", "BININT2", "LONG1"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


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


class _Name(str):
    """A class or function of ``_NAMES``, different from any text in the file."""


class Call:
    """A call that the pickle asks for and that is never made: ``function(*arguments)``, then ``state`` is set."""

    __slots__ = ("arguments", "function", "state")

    def __init__(self, function: Any, arguments: Any) -> None:
        if type(function) is not _Name or type(arguments) is not tuple:
            raise UnsafePickleError("a call that makes neither an array nor a Dictionary")
        self.function, self.arguments = str(function), arguments
        self.state: Any = None


def opcodes(reader: ByteReader) -> Iterator[tuple[str, Any]]:
    """Yield name and argument of each opcode of the next pickle. Raises ValueError if it is damaged."""
    try:
        for number, (opcode, argument, _) in enumerate(genops(cast("IO[bytes]", reader))):
            if number == MAX_STEPS:
                raise ValueError(f"more than {MAX_STEPS:,} steps")
            yield opcode.name, argument
    except (ValueError, AttributeError) as error:  # genops decodes long text of Python 2, which a memoryview cannot
        raise ValueError(f"damaged, or no pickle of the original XLM: {error}") from None


def check_checkpoint(operations: Iterable[tuple[str, Any]]) -> None:
    """Check that torch's loader would only make tensors, dicts and numpy's values of a pickle, and few copies.

    That loader calls more, like ``bytearray(1 << 40)`` or codecs that double their input, which take any memory that a
    file of 100 bytes asks for. Raises UnsafePickleError for such calls, ValueError for too many copies.
    """
    memo: dict[int, tuple[str, int]] = {}
    pushed, size, expected = "", 0, list[set[str]]()
    states, allowed, encoded = 0, 0, 0  # characters, and one for each operation, since short texts are stored once
    for name, argument in operations:
        allowed += 1
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = pushed, size
            continue
        is_encoded = pushed == "encode"
        if name in ("BINGET", "LONG_BINGET"):
            pushed, size = memo.get(argument, ("", 0))
        else:
            pushed, size = _pushed(name, argument), len(argument) if name == "BINUNICODE" else 0
            allowed += size
        if expected and pushed not in expected.pop(0):
            raise UnsafePickleError("a call that makes neither a tensor nor a number")
        expected += _MUST_FOLLOW.get(pushed, ())
        states += name == "BUILD"
        encoded += size * is_encoded
    if states > MAX_STATES or encoded > allowed:
        raise ValueError("copies its texts or dicts too often")


def _pushed(name: str, argument: Any) -> str:
    """Return the kind of a name or a text, and the operation of all else. Raises UnsafePickleError for other names."""
    if name == "BINUNICODE":
        return "latin1" if argument == "latin1" else "number" if argument.isascii() and argument.isdigit() else "text"
    if name != "GLOBAL":
        return name
    if argument in ("collections OrderedDict", "_codecs encode"):
        return str(argument.split()[1])
    if _STORAGE.fullmatch(argument):
        return "storage"
    if not _TENSOR_PARTS.fullmatch(argument):
        raise UnsafePickleError(argument.replace(" ", ".")[:100])
    return name


def read_pickle(reader: ByteReader) -> Any:
    """Return the next object: numbers, text, bytes, tuples, dicts; a dict of attributes for a Dictionary.

    Arrays that are values of the outermost dict are read-only views of the file; other arrays stay unusable. Raises
    UnsafePickleError for anything else, and ValueError, TypeError, LookupError, AttributeError for damage.
    """
    value = _interpret(reader)
    if type(value) is not dict:
        return value
    if len(value) > MAX_VALUES:
        raise ValueError(f"a dict of {len(value):,} values, more than {MAX_VALUES}")
    return {key: _evaluated(inner) if type(inner) is Call else inner for key, inner in value.items()}


def _interpret(reader: ByteReader) -> Any:
    """Return the object that the next pickle leaves on the stack.

    The type of a value is checked before it is hashed, compared, printed or iterated, so deeply nested and shared
    structures cost no more than the opcodes that created them.
    """
    stack: list[Any] = []
    below_marks: list[list[Any]] = []
    memo: dict[int, Any] = {}
    for name, argument in opcodes(reader):
        if name in _PUSH_ARGUMENT:
            stack.append(argument)
        elif name in _PUSH_CONSTANT:
            stack.append(_PUSH_CONSTANT[name])
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            below_marks.append(stack)
            stack = []
        elif name == "TUPLE":
            items, stack = stack, below_marks.pop()
            stack.append(tuple(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(_pop(stack, int(name[-1]))))
        elif name == "SETITEM":
            items = _pop(stack, 2)
            _set_items(stack[-1], items)
        elif name == "SETITEMS":
            items, stack = stack, below_marks.pop()
            _set_items(stack[-1], items)
        elif name == "GLOBAL":
            stack.append(_name(argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(_name(_pop(stack, 2)))
        elif name in ("REDUCE", "NEWOBJ"):
            stack.append(Call(*_pop(stack, 2)))
        elif name == "BUILD":
            (state,) = _pop(stack, 1)
            if type(stack[-1]) is not Call:
                raise UnsafePickleError("a state for what is neither an array nor a Dictionary")
            stack[-1].state = state
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise UnsafePickleError(f"the pickle operation {name}")
    if len(stack) != 1 or below_marks:
        raise ValueError(f"damaged: its pickle ends with {len(stack)} values instead of one")
    return stack[0]


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("damaged: its pickle takes more from the stack than there is")
    taken = stack[-count:]
    del stack[-count:]
    return taken


def _set_items(target: Any, items: list[Any]) -> None:
    if type(target) is not dict or len(items) % 2:
        raise ValueError("damaged: an item is set in what is no dict, or has no value")
    for key, value in zip(items[::2], items[1::2]):
        if type(key) not in (int, str):
            raise ValueError("a dict in it has keys that are neither numbers nor text")
        target[key] = value


def _name(parts: list[Any]) -> _Name:
    if any(type(part) is not str for part in parts):
        raise ValueError("damaged: a name in it is no text")
    name = ".".join(parts)
    if name not in _NAMES:
        raise UnsafePickleError(name[:100])
    return _Name(name)


def _evaluated(call: Call) -> Any:
    """Return the attributes of a Dictionary, or an array as a view of the file. Raises ValueError for other calls."""
    if call.function in _DICTIONARY and not call.arguments and type(call.state) is dict:
        return call.state
    if call.function not in _RECONSTRUCT or type(call.state) is not tuple or len(call.state) != 5:
        raise ValueError("damaged: an array in it is incomplete")
    _, shape, dtype, fortran_order, content = call.state
    if type(shape) is not tuple or len(shape) not in (1, 2) or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("an array in it has neither one dimension nor two")
    number, content = _number_type(dtype), _bytes(content)
    if fortran_order is not False:
        raise ValueError("an array in it is not stored row by row")
    if len(content) != prod(shape) * number.itemsize:
        raise ValueError("damaged: an array in it does not have the bytes that its shape needs")
    return np.ndarray(shape, number, content)


def _number_type(dtype: Any) -> np.dtype[Any]:
    """Return the type of a call of ``numpy.dtype``: its code is an argument, its byte order is in the state."""
    if type(dtype) is Call and dtype.function == _DTYPE and dtype.arguments and type(dtype.state) is tuple:
        code, order = dtype.arguments[0], dtype.state[1]
        if type(code) is str and code in _NUMBERS and type(order) is str and order == "<":
            return _NUMBERS[code]
    raise ValueError("an array in it is not of type uint16, int32 or int64, little-endian")


def _bytes(content: Any) -> bytes | memoryview:
    if type(content) is Call and content.function == _ENCODE and len(content.arguments) == 2:
        text, encoding = content.arguments
        if type(text) is str and type(encoding) is str and encoding == "latin1":
            return text.encode(encoding)
    if type(content) not in (bytes, memoryview):
        raise ValueError("damaged: an array in it has no content")
    return cast("bytes | memoryview", content)
