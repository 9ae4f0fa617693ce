"""Composing settings with Hydra. Nothing else knows Hydra or OmegaConf: callers get plain dataclasses.

Every rank composes for itself, so nothing here writes: Hydra's own output directory and logging are switched off in
the YAML files, and the run directory is made by rank 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xlmtrain.config.prepare import PrepareConfig
from xlmtrain.config.schema import Config
from xlmtrain.errors import ConfigError, UserError

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"
SCHEMAS: dict[str, type] = {"config": Config, "prepare": PrepareConfig}
T = TypeVar("T")


def compose(name: str, overrides: Sequence[str] = ()) -> Any:
    """The settings ``configs/<name>.yaml`` with ``overrides`` (``key=value``) as a validated dataclass.

    Raises ConfigError for an unknown key, a value of the wrong type, or an impossible combination.
    """
    _register()
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            config = hydra.compose(name, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_describe(error)) from error
    return _to_dataclass(config)


def program(name: str, body: Callable[[Any], None]) -> None:
    """Run ``body`` with the settings ``configs/<name>.yaml`` and the command line's overrides.

    A user's error ends the process with its message and exit code, without a traceback.
    """
    _register()

    def task(config: DictConfig) -> None:
        try:
            body(_to_dataclass(config))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=name)(task)()


def _register() -> None:
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)


def _to_dataclass(config: DictConfig) -> Any:
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise ConfigError("these settings have no value yet: " + ", ".join(f"{key}=..." for key in missing))
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(_describe(error)) from error


def _describe(error: BaseException) -> str:
    """The innermost message of a chain of exceptions, which names the key path, after the outermost."""
    lines = [str(error)]
    cause = error.__cause__
    while cause is not None:
        if str(cause) not in lines[-1]:
            lines.append(str(cause))
        cause = cause.__cause__
    return "\n  ".join(line.strip() for text in lines for line in text.splitlines() if line.strip())
