"""The readers of .pth files, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import evil_pickles as evil
from xlmtrain.errors import CheckpointError, DataError
from xlmtrain.interop.xlm.pth import read_checkpoint_file, read_data_file

READERS: list[tuple[Callable[[Path], dict[str, Any]], type[Exception]]] = [
    (read_checkpoint_file, CheckpointError),
    (read_data_file, DataError),
]


NOWHERE = Path("marker")


every_reader = pytest.mark.parametrize(("reader", "error"), READERS, ids=["checkpoint", "data"])


every_container = pytest.mark.parametrize("container", evil.CONTAINERS)


def refusal(reader: Callable[[Path], Any], error: type[Exception], path: Path, content: bytes) -> str:
    """The one line with which a file of this content is refused."""
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 320
    return message.removeprefix(f"{path}: ")
