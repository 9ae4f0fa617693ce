"""What all tests of training share."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny import write_tiny_dataset
from xlmtrain.runtime import failpoints

REPOSITORY = Path(__file__).parents[1]
torch.set_num_threads(1)  # tests share few cores, and sums over threads would differ between machines


class Oracle:
    """Numbers that the original code gave; ``oracle["cases.tlm.x"]`` is a tensor, ``oracle.numbers`` the rest."""

    def __init__(self, directory: Path) -> None:
        self._tensors = load_file(directory / "oracle.safetensors")
        self.numbers: dict[str, Any] = json.loads((directory / "oracle.json").read_text(encoding="utf-8"))

    def __getitem__(self, name: str) -> torch.Tensor:
        """A tensor; ids and flags as int64."""
        tensor = self._tensors[name]
        return tensor.long() if tensor.dtype == torch.uint8 else tensor

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under ``prefix``, which is taken off their names."""
        return {name[len(prefix) :]: self[name] for name in self._tensors if name.startswith(prefix)}


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
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set, shared by all tests: do not write to it."""
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture
def own_dataset(tmp_path: Path) -> Path:
    """The same for one test alone, to damage."""
    return write_tiny_dataset(tmp_path / "data")


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
