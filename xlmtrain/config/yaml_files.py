"""Checks of the YAML files that a command line chooses. Hydra reads them afterwards, but its messages name no line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import yaml

from xlmtrain.errors import ConfigError, damage_as

_MAX_NODES = 100_000
_TEXT, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?")
_PACKAGE = re.compile(r"(?:\s*#.*\n)*?\s*#\s*@package\s+(\S+)")


def check_yaml(
    group: str,
    option: str,
    directories: Sequence[Path],
    sections: Collection[str],
    texts: Collection[str],
    chosen_by: tuple[Path, ...] = (),
) -> None:
    """Check ``group/option.yaml`` in the first directory that has it, and the files that its defaults list chooses.

    ``sections``: of the settings; a file of another group holds settings of all of them. ``texts``: key paths of the
    settings that are text. ``chosen_by``: the files that chose this one. Raises ConfigError with file and line.
    """
    paths = [directory / group / f"{option.removesuffix('.yaml')}.yaml" for directory in directories]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return  # Hydra lists the options
    if path in chosen_by:
        raise ConfigError(f"{path}:1: its defaults choose this file again")
    package = match[1] if (match := _PACKAGE.match(_read(path))) else group
    if group not in sections and package != "_global_":
        raise ConfigError(f"{path}:1: the first line must be '# @package _global_', then settings by their sections")
    root = check_settings_file(path, texts, "" if package == "_global_" else f"{package}.")
    for key, value in root.value:
        if key.value == "defaults":
            for inner_group, inner_option in _chosen(value, path):
                check_yaml(inner_group, inner_option, directories, sections, texts, (*chosen_by, path))


def check_settings_file(path: Path, texts: Collection[str], prefix: str = "") -> yaml.MappingNode:
    """Return the YAML of a file of settings, which all have the ``prefix``; ``texts``: as in :func:`check_yaml`.

    Raises ConfigError with file and line.
    """
    text = _read(path)
    with damage_as(ConfigError, f"{path}:1: not YAML that can be read"):
        try:
            root = yaml.compose(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError(f"{path}:{line}: not YAML: {error.reason}") from None
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path}:1: has no settings; give them as 'key: value'")
        if _expanded_size(root, {}) > _MAX_NODES:
            raise ConfigError(f"{path}:1: has more than {_MAX_NODES:,} values, its aliases (*name) written out")
        _check_mapping(root, path, prefix, texts)
    return root


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the number of values in ``node`` with all aliases written out; too large if it contains itself."""
    if id(node) not in sizes:
        sizes[id(node)] = _MAX_NODES + 1
        children = sum(node.value, ()) if isinstance(node, yaml.MappingNode) else node.value
        inner = () if isinstance(node, yaml.ScalarNode) else children
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in inner)
    return sizes[id(node)]


def _read(path: Path) -> str:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; save the file in this encoding") from None
    if text.startswith("\ufeff"):
        raise ConfigError(f"{path}:1: begins with a byte-order mark; save the file as UTF-8 without it")
    return text


def _check_mapping(node: yaml.MappingNode, path: Path, prefix: str, texts: Collection[str]) -> None:
    """Refuse keys that are doubled or not text (``no`` is false in YAML), and numbers where text is needed."""
    seen = set()
    for key, value in node.value:
        where = f"{path}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{where}: a key must be text; put it in quotes")
        if key.value in seen:
            raise ConfigError(f"{where}: {key.value} is there twice")
        if key.tag != _TEXT or (prefix + key.value in texts and not _is_text(value)):
            odd = key if key.tag != _TEXT else value
            raise ConfigError(f"{where}: YAML does not read {odd.value} as text; put it in quotes")
        seen.add(key.value)
        inner = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for element in inner:
            if isinstance(element, yaml.MappingNode):
                _check_mapping(element, path, f"{prefix}{key.value}.", texts)


def _is_text(node: yaml.Node) -> bool:
    if not isinstance(node, yaml.ScalarNode):
        return True  # a wrong type, which Hydra names
    return node.tag in (_TEXT, _NULL) and (node.style is not None or not _NUMBER.fullmatch(node.value))


def _chosen(defaults: yaml.Node, path: Path) -> Iterator[tuple[str, str]]:
    """Yield (group, option) of a defaults list, like ``- override /model: small``."""
    if not isinstance(defaults, yaml.SequenceNode):
        raise ConfigError(f"{path}:{defaults.start_mark.line + 1}: defaults must be a list")
    for entry in defaults.value:
        if isinstance(entry, yaml.MappingNode):
            for key, value in entry.value:
                if isinstance(value, yaml.ScalarNode):
                    yield key.value.removeprefix("override ").strip().lstrip("/"), value.value
