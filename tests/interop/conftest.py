"""A run that others begin from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from tests.support.warm_starts import STEPS
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.formats import read_model
from xlmtrain.interop.run import CheckpointChoice


@pytest.fixture(scope="session")
def first(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that others begin from."""
    path = tmp_path_factory.mktemp("first") / "run"
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": STEPS}))
    return path


@pytest.fixture(scope="session")
def saved(first: Path) -> PretrainedBundle:
    return read_model(first, CheckpointChoice.last)
