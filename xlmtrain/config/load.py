"""Composing settings with Hydra. Nothing else knows Hydra or OmegaConf: callers get plain dataclasses.

Every rank composes for itself, so nothing here writes: Hydra's own output directory and logging are switched off in
the YAML files, and the run directory is made by rank 0.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xlmtrain.config.finetune import FinetuneConfig
from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.config.reference import key_paths, reference
from xlmtrain.config.schema import Config
from xlmtrain.errors import ConfigError, UserError

# Beside the package: the programs run from a checkout.
CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"
SCHEMAS: dict[str, type] = {"config": Config, "prepare": PrepareConfig, "finetune": FinetuneConfig}
T = TypeVar("T")
_RESOLVER = re.compile(r"(?<!\\)\$\{\s*[\w.]+\s*:")
# What Hydra adds to its messages and a user cannot use; its advice to write +key would be refused.
_NOISE = ("To append to your config", "Config search path", "provider=", "See https:", "reference_type", "object_type")


def compose(name: str, overrides: Sequence[str] = ()) -> Any:
    """The settings ``configs/<name>.yaml`` with ``overrides`` (``key=value``) as a validated dataclass.

    Raises ConfigError for an unknown key, a value of the wrong type, or an impossible combination.
    """
    _register()
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            config = hydra.compose(name, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_describe(error) + _suggestion(error, SCHEMAS[name])) from error
    return _to_dataclass(config)


def program(name: str, body: Callable[[Any], None]) -> None:
    """Run ``body`` with the settings ``configs/<name>.yaml`` and the command line's overrides.

    ``--help`` explains every setting; Hydra's other flags (``--cfg job``, ``--multirun``) work as everywhere. A user's
    error ends the process with its message and exit code, without a traceback.
    """
    flags = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    if {"--help", "-h"} & set(flags):
        print(_help(name))
        return
    if not flags:  # Hydra's own runner words mistakes in its own way and hides where a bug comes from
        with user_errors():
            body(compose(name, sys.argv[1:]))
        return
    _register()

    def task(config: DictConfig) -> None:
        with user_errors():
            body(_to_dataclass(config))

    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=name)(task)()


def arguments(schema: type[T], argv: Sequence[str], more: bool = False) -> tuple[T, list[str]]:
    """The ``key=value`` arguments of a small tool as its dataclass, and the other arguments.

    ``--help`` prints the fields' docstrings and ends the program. A list is given as one ``key=value`` for each of its
    entries, a group of settings as Hydra reads it, ``key={a: 1}``. ``more``: keys that the tool does not have are among
    the others, too. Raises ConfigError for a wrong type, a missing value, or an unknown key.
    """
    if {"--help", "-h"} & set(argv):
        print("\n".join([(sys.modules["__main__"].__doc__ or "").strip(), "", *reference(schema)]))
        raise SystemExit(0)
    keys = {field.name for field in fields(schema)}  # type: ignore[arg-type]
    unknown = [argument for argument in argv if (match := re.match(r"([a-z_]+)=", argument)) and match[1] not in keys]
    if unknown and not more:
        raise ConfigError(f"no such settings: {', '.join(unknown)}; there are {', '.join(sorted(keys))}")
    pairs = [argument for argument in argv if argument.partition("=")[0] in keys and "=" in argument]
    config = OmegaConf.structured(schema)
    try:
        for pair in pairs:
            key, _, value = pair.partition("=")
            value = value.replace("${", "\\${")  # a text may hold anything: it is no interpolation
            if OmegaConf.is_list(config._get_node(key)):
                config[key].append(value)
            elif OmegaConf.is_dict(config._get_node(key)):
                OmegaConf.update(config, key, OverridesParser.create().parse_override(pair).value())
            else:
                config[key] = value
    except HydraException as error:
        raise ConfigError(f"{pair}: cannot be read: {error}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(_describe(error)) from error
    return _to_dataclass(config), [argument for argument in argv if argument not in pairs]


def from_json(schema: type[T], values: dict[str, Any]) -> T:
    """A dataclass of settings from plain JSON values, checked like any others; raises ConfigError."""
    try:
        return _to_dataclass(OmegaConf.merge(OmegaConf.structured(schema), values))
    except OmegaConfBaseException as error:
        raise ConfigError(_describe(error)) from error


@contextmanager
def user_errors() -> Iterator[None]:
    """End the process with the message and exit code of a UserError, without a traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _help(name: str) -> str:
    defaults = OmegaConf.load(CONFIG_DIR / f"{name}.yaml").defaults
    keys = [str(key) for entry in defaults if isinstance(entry, DictConfig) for key in entry]
    groups = {key: ", ".join(sorted(file.stem for file in (CONFIG_DIR / key).glob("*.yaml"))) for key in keys}
    lines = ["Settings are given as key=value; the values below are the schema's, before configs/ is applied.", ""]
    lines += [f"{group}=  {options}" for group, options in groups.items() if options]
    return "\n".join([*lines, "", *reference(SCHEMAS[name])])


def _register() -> None:
    for name, schema in SCHEMAS.items():
        node = OmegaConf.structured(schema)
        _open_mappings(node)
        ConfigStore.instance().store(name=f"{name}_schema", node=node)


def _open_mappings(node: DictConfig) -> None:
    """Let ``train.mono.en=...`` add a language without Hydra's ``+``; the schema's own keys stay closed."""
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            if OmegaConf.get_type(child) is dict:
                OmegaConf.set_struct(child, False)
            else:
                _open_mappings(child)


def _to_dataclass(config: Any) -> Any:
    _refuse_resolvers(OmegaConf.to_container(config, resolve=False))
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise ConfigError("these settings have no value yet: " + ", ".join(f"{key}=..." for key in missing))
        result = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(_describe(error)) from error
    unknown = list(_unknown(result))
    if unknown:
        raise ConfigError("there are no such settings: " + ", ".join(unknown))
    return result


def _refuse_resolvers(value: Any, key: str = "") -> None:
    """Settings may refer to each other, to nothing else: ``${oc.env:TOKEN}`` would write a secret into the run."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_resolvers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_resolvers(inner, f"{key}.{number}")
    elif isinstance(value, str) and _RESOLVER.search(value):
        raise ConfigError(f"{key}: {value} asks for something outside the settings; give the value itself")


def _suggestion(error: BaseException, schema: type) -> str:
    """The setting whose key is most like the one that the error says is not there."""
    missing = re.search(r"^Key .* (?:is )?not in [^$]*full_key: (\S+)", str(error.__cause__ or error), re.MULTILINE)
    alike = difflib.get_close_matches(missing[1], key_paths(schema), n=1) if missing else []
    return f"\n  did you mean {alike[0]}?" if alike else ""


def _unknown(settings: Any, prefix: str = "") -> Iterator[str]:
    """Key paths that Hydra's ``+key=value`` put beside the schema's."""
    known = {field.name for field in fields(settings)}
    for key, value in vars(settings).items():
        if key not in known:
            yield prefix + key
        elif is_dataclass(value):
            yield from _unknown(value, f"{prefix}{key}.")


def _describe(error: BaseException) -> str:
    """The innermost message of a chain of exceptions, which names the key path, after the outermost."""
    lines = [str(error)]
    cause = error.__cause__
    while cause is not None:
        if str(cause) not in lines[-1]:
            lines.append(str(cause))
        cause = cause.__cause__
    shown = [line.strip() for text in lines for line in text.splitlines()]
    return "\n  ".join(line for line in shown if line and not line.startswith(_NOISE))
