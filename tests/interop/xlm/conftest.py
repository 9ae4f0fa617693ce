"""Fixtures of the tests that read the original's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.xlm_corpus import ENGLISH, GERMAN
from tests.support.xlm_files import write_data


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file, or a directory, that must not come to be."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "something in the file was executed"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """German, English, and both, for training and validation."""
    directory = tmp_path / "data"
    directory.mkdir()
    for split in ("train", "valid"):
        for name, sentences in (("de", GERMAN), ("en", ENGLISH[:3]), ("de-en.de", GERMAN), ("de-en.en", ENGLISH)):
            write_data(directory / f"{split}.{name}.pth", sentences)
    return directory
