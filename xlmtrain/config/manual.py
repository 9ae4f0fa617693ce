"""Reference of all settings, from the schema: key, type, default, and the docstring of each field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, get_args, get_type_hints


def settings_manual(schema: type, prefix: str = "", values: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Yield lines that explain every field of a dataclass, then its nested dataclasses, by key path.

    ``values``: of the fields, as plain nested values; else they are the schema's own.
    """
    kinds, meanings, sections = get_type_hints(schema), field_docs(schema), []
    for field in dataclasses.fields(schema):
        kind, key, value = kinds[field.name], prefix + field.name, None if values is None else values[field.name]
        if dataclasses.is_dataclass(kind):
            lines = [*settings_manual(kind, f"{key}.", value)]  # type: ignore[arg-type]
            sections.append((key, meanings[field.name], lines))
        elif inner := [argument for argument in get_args(kind) if dataclasses.is_dataclass(argument)]:
            lines = [f"  {key}[{i}]={element}" for i, element in enumerate(value or [])]
            lines += settings_manual(inner[0], f"{key}[i].")  # type: ignore[arg-type]
            sections.append((key, meanings[field.name], lines))
        else:
            yield f"  {key}={_shown(_default(field) if values is None else value)}   [{_kind(kind)}]"
            if meanings[field.name]:
                yield textwrap.indent(textwrap.fill(meanings[field.name], 100), " " * 8)
    for key, meaning, lines in sections:
        yield from ("", textwrap.fill(f"{key}: {meaning}", 108))
        yield from lines


def key_paths(schema: type, prefix: str = "") -> dict[str, Any]:
    """Return key path -> type of every setting of a dataclass and its nested dataclasses."""
    found: dict[str, Any] = {}
    for name, kind in get_type_hints(schema).items():
        is_section = dataclasses.is_dataclass(kind) and isinstance(kind, type)
        found |= key_paths(kind, f"{prefix}{name}.") if is_section else {prefix + name: kind}
    return found


def text_keys(schema: type) -> set[str]:
    """Return the key paths of the settings that are text or one of several words."""
    choices = {key for key, kind in key_paths(schema).items() if isinstance(kind, type) and issubclass(kind, Enum)}
    return choices | {key for key, kind in key_paths(schema).items() if kind in (str, str | None)}


def field_docs(schema: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, inherited or not, joined to one line; empty if missing."""
    docs = {field.name: "" for field in dataclasses.fields(schema)}
    try:
        source = inspect.getsource(schema)
    except OSError:  # made by make_dataclass of another one, which explains the fields
        return docs
    body = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(body, ast.ClassDef)
    for base in filter(dataclasses.is_dataclass, schema.__bases__):
        docs |= field_docs(base)
    for statement, following in zip(body.body, body.body[1:]):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split())
    return docs


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _shown(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _kind(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " | ".join(member.value for member in kind)
    if isinstance(kind, types.UnionType):
        return " | ".join("null" if argument is type(None) else _kind(argument) for argument in get_args(kind))
    return kind.__name__ if type(kind) is type else str(kind)
