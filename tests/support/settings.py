"""Settings composed for tests, and the refusal of wrong ones."""

from __future__ import annotations

import pytest

from xlmtrain.config.load import compose
from xlmtrain.config.schema import Config
from xlmtrain.errors import ConfigError

GIVEN = ["run=somewhere", "data.path=somewhere", "data.mlm={de: 1, en: 1}"]


def train_config(*overrides: str) -> Config:
    return compose("config", [*GIVEN, *overrides])


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        train_config(*overrides)
    return str(caught.value)
