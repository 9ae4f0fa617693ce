"""What all tests of training share."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.oracle import Oracle
from tests.support.programs import Call
from tests.support.tiny import no_sync, write_tiny_dataset
from xlmtrain.runtime import failpoints

torch.set_num_threads(1)  # tests share few cores, and sums over threads would differ between machines


@pytest.fixture(scope="session", autouse=True)
def _no_sync() -> Iterator[None]:
    """Do not wait for the disk, a fifth of the tests' time; ``support/power.py`` records what is synced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_sync)
        yield


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle(Path(__file__).parent / "fixtures")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory of the full reference; skips without it."""
    path = os.environ.get("XLMTRAIN_SHARED")
    if not path:
        pytest.skip("XLMTRAIN_SHARED is not set: the full reference is not here")
    return Path(path)


@pytest.fixture(scope="session")
def reference(shared: Path) -> dict[str, Any]:
    return torch.load(shared / "reference" / "reference.pt", weights_only=True)


@pytest.fixture(scope="session")
def translation(shared: Path) -> dict[str, Any]:
    """The reference of the original's translation half."""
    return torch.load(shared / "reference" / "translation.pt", weights_only=True)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set, shared by all tests: do not write to it."""
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture
def own_dataset(tmp_path: Path) -> Path:
    """The same for one test alone, to damage."""
    return write_tiny_dataset(tmp_path / "data")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``call(name, *arguments, code=0)``: a program's output, run in this process."""
    return Call(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """Signal handlers, log handlers and faults are the process's: put them back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    logger = logging.getLogger("xlmtrain")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    for number, action in zip(numbers, before):
        signal.signal(number, action)
    for handler in [handler for handler in logger.handlers if handler not in handlers]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
    logger.propagate = propagate
    failpoints.arm(None, rank=0)
