"""Composing settings with Hydra. Nothing else knows Hydra or OmegaConf: callers get plain dataclasses.

Every rank composes for itself, so nothing here writes: Hydra's own output directory and logging are switched off in
the YAML files, and the run directory is made by rank 0.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, EnumNode, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from xlmtrain.config.finetune import FinetuneConfig
from xlmtrain.config.manual import key_paths, settings_manual, text_keys
from xlmtrain.config.prepare import PrepareConfig, with_paths_from
from xlmtrain.config.schema import Config, PhaseConfig
from xlmtrain.config.validate import check_texts
from xlmtrain.config.yaml_files import check_settings_file, check_yaml
from xlmtrain.errors import ConfigError, damage_as, did_you_mean
from xlmtrain.resources import resource
from xlmtrain.runtime.program import user_errors

CONFIG_DIR = resource("configs")
SCHEMAS: dict[str, type] = {"config": Config, "prepare": PrepareConfig, "finetune": FinetuneConfig}
# Program -> config group in whose place a YAML file anywhere may stand, and the option that stands for such a file.
FILE_GROUPS, _FILE_OPTION = {"prepare": "corpus"}, "__file__"
T = TypeVar("T")
_CONFIG_DIR_FLAGS = ("--config-dir", "-cd")
_HYDRAS_FLAGS = {"--cfg", "-c", "--resolve", "--package", "-p", "--multirun", "-m", "--info", "-i"}
_SYNTAX = "settings are key=value without blanks around the =; text inside {} and [] is in quotes unless it is plain"
_STRUCTURE = re.compile(r"^['\"]|[\[\]]|(?<!\$)\{")
# What Hydra adds to its messages and a user cannot use; its advice to write +key would be refused.
_NOISE = ("To append to your ", "Config search path", "provider=", "See https:", "reference_type", "object_type")


def compose(name: str, overrides: Sequence[str] = ()) -> Any:
    """Return the settings ``configs/<name>.yaml`` with ``overrides`` (``key=value``) as a validated dataclass.

    ``--config-dir DIR`` among them adds a directory with configs of one's own; for ``prepare``, the path of a YAML file
    has its settings, with paths relative to its directory. Raises ConfigError for an unknown key, a
    value of the wrong type, an impossible combination, or a faulty YAML file.
    """
    with _config_errors():
        return _to_dataclass(_composed(name, overrides))


@contextmanager
def _config_errors(what: str = "the settings") -> Iterator[None]:
    """Turn the errors of Hydra and OmegaConf, and any other that a value of ``what`` causes, into ConfigErrors."""
    with damage_as(ConfigError, f"{what} cannot be read"):
        try:
            yield
        except HydraException as error:
            raise ConfigError(f"{what} cannot be read; {_SYNTAX}") from error
        except OmegaConfBaseException as error:
            raise ConfigError(_describe(error)) from error


def _composed(name: str, overrides: Sequence[str]) -> DictConfig:
    _register()
    words = _checked_overrides(name, overrides)
    with _no_hydra_around(), hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            return hydra.compose(name, overrides=words)
        except OverrideParseException as error:
            raise ConfigError(f"{error.override}: cannot be read; {_SYNTAX}") from error
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(_describe(error) + _suggestion(error, name)) from error


@contextmanager
def _no_hydra_around() -> Iterator[None]:
    """Hide a running Hydra, as Hydra cannot be initialized inside a program that it runs itself (a sweep)."""
    around = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = around


def _checked_overrides(name: str, overrides: Sequence[str]) -> list[str]:
    """Return ``overrides`` as Hydra reads them: text in quotes where needed, ``--config-dir DIR`` as a search path.

    Raises ConfigError for a word that is not ``key=value``, and for a mistake in a YAML file that is chosen.
    """
    texts, groups = text_keys(SCHEMAS[name]), config_groups(name)
    sections = {field.name for field in fields(SCHEMAS[name])}
    found, chosen, directories = [], [], [CONFIG_DIR]
    words = iter(overrides)
    for word in words:
        key, equals, value = word.partition("=")
        if key in _CONFIG_DIR_FLAGS:
            directory = Path(value if equals else next(words, "")).absolute()
            if not directory.is_dir():
                raise ConfigError(f"{key} {directory}: there is no such directory")
            directories.append(directory)
            found.append(f"hydra.searchpath=[{_quoted(f'file://{directory}')}]")
        elif _is_settings_file(name, word):
            found.append(_file_override(name, Path(word)))
            chosen.append((FILE_GROUPS[name], _FILE_OPTION))
        elif word.startswith(("-", "+", "~")) or not equals:
            raise ConfigError(f"{word}: there is no such option; {_SYNTAX}")
        elif key in groups and value.strip() in ("", "null"):
            raise ConfigError(f"{word}: name one of {', '.join(groups[key])}, or leave it out")
        else:
            found.append(_as_text(word) if key in texts or key in groups else word)
            chosen += [(key, value)] if key in groups else []
    files = [option for group, option in chosen if group == FILE_GROUPS.get(name)]
    if len(files) > 1 and _FILE_OPTION in files:
        raise ConfigError(f"one file of settings, or {FILE_GROUPS[name]}=..., can be given, here are {len(files)}")
    for group, option in chosen:
        check_yaml(group, option, directories, sections, texts)
    return found


def _is_settings_file(name: str, word: str) -> bool:
    is_named = word.endswith((".yaml", ".yml")) and not word.startswith(("-", "+"))
    return name in FILE_GROUPS and is_named and ("=" not in word or Path(word).is_file())


def _file_override(name: str, path: Path) -> str:
    """Return the override that chooses the settings in a YAML file. Raises ConfigError if they are none."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file (looked in {Path.cwd()})")
    check_settings_file(path, text_keys(SCHEMAS[name]))
    with damage_as(ConfigError, f"{path}: cannot be read"):
        try:
            settings = OmegaConf.load(path)
            OmegaConf.merge(OmegaConf.structured(SCHEMAS[name]), settings)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{path}: {_describe(error)}{_suggestion(error, name)}") from error
    values = with_paths_from(path.parent, OmegaConf.to_container(settings))  # type: ignore[arg-type]
    ConfigStore.instance().store(_FILE_OPTION, values, FILE_GROUPS[name], "_global_")
    return f"{FILE_GROUPS[name]}={_FILE_OPTION}"


def _as_text(word: str) -> str:
    """Return an override of a text setting, in quotes if Hydra would read a number in it, or not read it."""
    key, _, value = word.partition("=")
    try:
        needed = isinstance(OverridesParser.create().parse_override(word).value(), (bool, int, float))
    except HydraException:
        needed = not _STRUCTURE.search(value)
    return f"{key}={_quoted(value)}" if needed else word


def _quoted(value: str) -> str:
    """Return a value in quotes; Hydra unescapes backslashes only before a quote."""
    doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", value)
    return "'" + doubled.replace("'", "\\'") + "'"


def hydra_main(name: str, body: Callable[[Any], None], argv: Sequence[str]) -> None:
    """Run ``body`` with the settings ``configs/<name>.yaml`` and the overrides ``argv``.

    ``--help`` shows the docstring of ``body``'s module and explains every setting; Hydra's other flags (``--cfg job``,
    ``--multirun``) work as everywhere. A user's error ends the process with its message and exit code, without a
    traceback.
    """
    if not _HYDRAS_FLAGS & set(argv):  # Hydra's own runner words mistakes in its own way and hides where a bug is
        with user_errors():
            if {"--help", "-h"} & set(argv):
                words = [word for word in argv if word not in ("--help", "-h")]
                print("\n".join([_docstring(body), "", *_manual(name, words)]))
            else:
                body(compose(name, argv))
        return
    _register()
    overrides = [w for w in argv if ("=" in w and not w.startswith("-")) or _is_settings_file(name, w)]
    with user_errors():
        sys.argv[1:] = [word for word in argv if word not in overrides] + _checked_overrides(name, overrides)

    def task(config: DictConfig) -> None:
        with user_errors():
            with _config_errors():
                settings = _to_dataclass(config)
            body(settings)

    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=name)(task)()


def parse_options(schema: type[T], argv: Sequence[str]) -> T:
    """Return the arguments of a command that takes only its own settings, as :func:`parse_args`."""
    options, others = parse_args(schema, argv)
    if others:
        raise ConfigError(f"not understood: {' '.join(others)}")
    return options


def parse_args(schema: type[T], argv: Sequence[str], more: bool = False) -> tuple[T, list[str]]:
    """Return the ``key=value`` arguments of a command as its dataclass, and the other arguments.

    ``--help`` prints the docstrings of the schema's module, of the schema and of its fields, and ends the program. A
    list is given as one ``key=value`` for each of its entries, a section of settings as Hydra reads it, ``key={a: 1}``.
    ``more``: settings of training are among the others. Raises ConfigError for a wrong type, a missing value, or an
    unknown key.
    """
    if {"--help", "-h"} & set(argv):
        print("\n".join([_docstring(schema), "", schema.__doc__ or "", *settings_manual(schema)]))
        raise SystemExit(0)
    keys = {field.name for field in fields(schema)}  # type: ignore[arg-type]
    known = {*keys, *(field.name for field in fields(Config)), *config_groups("config")} if more else keys
    given = [argument for argument in argv if re.match(r"[a-z_]+=", argument)]
    if unknown := [argument for argument in given if argument.partition("=")[0] not in known]:
        there = (", ".join(sorted(keys)) or "none") + did_you_mean(unknown[0].partition("=")[0], known)
        raise ConfigError(f"no such settings: {', '.join(unknown)}; there are {there}")
    pairs = [argument for argument in argv if argument.partition("=")[0] in keys and "=" in argument]
    config = OmegaConf.structured(schema)
    for pair in pairs:
        key, _, value = pair.partition("=")
        value = value.replace("${", "\\${")  # a text may hold anything: it is no interpolation
        with _config_errors(f"{pair[:100]}:"):
            if OmegaConf.is_list(config._get_node(key)):
                config[key].append(value)
            elif OmegaConf.is_dict(config._get_node(key)):
                OmegaConf.update(config, key, OverridesParser.create().parse_override(pair).value())
            elif isinstance(config._get_node(key), EnumNode):
                config[key] = value.replace("-", "_")  # names of choices are identifiers: sentence-transformers
            else:
                config[key] = value
    with _config_errors():
        return _to_dataclass(config), [argument for argument in argv if argument not in pairs]


def from_json(schema: type[T], values: dict[str, Any]) -> T:
    """Return a validated dataclass of settings from plain JSON values. Raises ConfigError."""
    with _config_errors():
        return _to_dataclass(OmegaConf.merge(OmegaConf.structured(schema), values))


def _docstring(program: Callable[..., Any]) -> str:
    """Return the docstring of the module of a function or class: the description of a program."""
    return (sys.modules[program.__module__].__doc__ or "").strip()


def _manual(name: str, overrides: Sequence[str]) -> list[str]:
    """Return lines that list the config groups, and every setting with its current value."""
    lines = ["Settings are given as key=value; those with ??? need a value."]
    lines += [f"{group}=  {', '.join(options)}" for group, options in config_groups(name).items()]
    values = OmegaConf.to_container(_composed(name, overrides))
    return [*lines, "", *settings_manual(SCHEMAS[name], values=values)]  # type: ignore[arg-type]


def config_groups(name: str) -> dict[str, list[str]]:
    """Return config group -> names of its files, of the groups that ``configs/<name>.yaml`` chooses from."""
    defaults = OmegaConf.load(CONFIG_DIR / f"{name}.yaml").defaults
    keys = [str(key) for entry in defaults if isinstance(entry, DictConfig) for key in entry]
    found = {key: sorted(file.stem for file in (CONFIG_DIR / key).glob("*.yaml")) for key in keys}
    return {key: files for key, files in found.items() if files}


@cache
def _register() -> None:
    """Tell Hydra the types of all settings, once."""
    for name, schema in SCHEMAS.items():
        node = OmegaConf.structured(schema)
        _open_mappings(node)
        if "phases" in node:  # typed by _typed_phases, whose messages have the key path
            node.__dict__["_content"]["phases"] = ListConfig([], key="phases", parent=node)
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


def _typed_phases(config: DictConfig) -> None:
    """Give the phases their type. Raises ConfigError with the key path of a setting that a phase cannot have."""
    if not isinstance(config.phases, ListConfig):
        raise ConfigError(f"phases: {config.phases} is no list; give phases=[{{name: ..., steps: ...}}, ...]")
    for number, phase in enumerate(config.phases):
        try:
            config.phases[number] = OmegaConf.merge(OmegaConf.structured(PhaseConfig), phase)
        except ConfigKeyError as error:
            known, key = key_paths(PhaseConfig), str(error.full_key)
            what = f"phases[{number}].{key}: a phase does not change this{did_you_mean(key, known)}"
            raise ConfigError(f"{what}\n  It has {', '.join(known)}") from None
        except (OmegaConfBaseException, ValueError) as error:
            place = getattr(error, "full_key", None) or ""
            raise ConfigError(f"phases[{number}]{place and f'.{place}'}: {str(error).splitlines()[0]}") from None


def _to_dataclass(config: Any) -> Any:
    if OmegaConf.get_type(config) is Config:
        _typed_phases(config)
    check_texts(OmegaConf.to_container(config, resolve=False))
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError("these settings have no value yet: " + ", ".join(f"{key}=..." for key in missing))
    return OmegaConf.to_object(config)


def _suggestion(error: BaseException, name: str) -> str:
    """Return a hint with the existing setting that ends like, or resembles, the unknown one in the error."""
    said = str(error.__cause__ or error)
    missing = re.search(r"^Key .* (?:is )?not in [^$]*full_key: (\S+)", said, re.MULTILINE)
    missing = missing or re.search(r"^Could not override '([^']+)'", said)
    if missing is None:
        return ""
    paths = list(key_paths(SCHEMAS[name]))
    sections = {path.partition(".")[0] for path in paths}
    if alike := next((path for path in paths if path.endswith(f".{missing[1]}")), None):
        return f"; did you mean {alike}?"
    return did_you_mean(missing[1], [*paths, *sections, *config_groups(name)])


def _describe(error: BaseException) -> str:
    """Return the messages of a chain of exceptions, outermost first; the innermost names the key path."""
    lines = [str(error)]
    cause = error.__cause__
    while cause is not None:
        if str(cause) not in lines[-1]:
            lines.append(str(cause))
        cause = cause.__cause__
    shown = [line.strip() for text in lines for line in text.splitlines()]
    return "\n  ".join(line for line in shown if line and not line.startswith(_NOISE))
