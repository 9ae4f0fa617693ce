"""Conversion of JSON values, which a damaged or edited file may hold in any shape, to dataclasses and other types."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_MAX_INTEGER = 1 << 63


def typed(kind: type[T], value: Any, where: str = "") -> T:
    """Return the JSON ``value`` as ``kind``: a dataclass, list, dict, tuple, ``X | None``, Enum, plain type, or Any.

    ``where``: its key path, for messages. Raises TypeError for a value of another type, a key that is unknown or
    missing, and a number that 64 bits do not hold; ValueError for a value that an Enum does not have.
    """
    found: T = _typed(kind, value, where)
    return found


def _typed(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(arguments[0], value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if is_dataclass(kind):
        return _dataclass(kind, _checked(dict, value, where), where)
    if origin in (dict, Mapping):
        items = _checked(dict, value, where).items()
        return {key: _typed(arguments[1], inner, _path(where, key)) for key, inner in items}
    if origin is list:
        return [_typed(arguments[0], item, _path(where, i)) for i, item in enumerate(_checked(list, value, where))]
    if origin is tuple:
        if len(_checked(list, value, where)) != len(arguments):
            raise TypeError(f"{where}: {len(value)} values instead of {len(arguments)}")
        return tuple(
            _typed(inner_kind, inner, _path(where, i)) for i, (inner_kind, inner) in enumerate(zip(arguments, value))
        )
    if type(value) is int and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise TypeError(f"{where}: a number that 64 bits do not hold")
    return float(value) if kind is float and type(value) is int else _checked(kind, value, where)


def _dataclass(kind: Any, values: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    needed = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
    if odd := sorted(needed - values.keys()) or sorted(values.keys() - hints.keys()):
        raise TypeError(f"{_path(where, odd[0])}: {'missing' if odd[0] in needed else 'unknown'}")
    return kind(**{name: _typed(hints[name], inner, _path(where, name)) for name, inner in values.items()})


def _checked(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{where or 'it'}: {type(value).__name__}, not {kind.__name__}")
    return value


def _path(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)
