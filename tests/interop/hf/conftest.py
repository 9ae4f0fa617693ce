"""The tests of this folder ask no server for anything; folders of transformers to read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.hf_folders import model_of
from xlmtrain.interop.hf.model import write_hf_folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``model_of(["de", "en"])``: not to be changed."""
    path = tmp_path_factory.mktemp("written") / "model"
    path.mkdir()
    write_hf_folder(model_of(["de", "en"]), path)
    return path


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "copy")
