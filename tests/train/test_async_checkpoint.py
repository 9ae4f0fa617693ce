"""Checkpoints are written while the steps go on; storage that fails costs no run before it has failed for good."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny import ALONE
from xlmtrain.errors import CheckpointError
from xlmtrain.runtime import failpoints
from xlmtrain.train import async_checkpoint
from xlmtrain.train.async_checkpoint import AsyncCheckpointer, Best
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import read_checkpoint


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_checkpoint, "RETRY_DELAYS", (0.0, 0.0))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointManager:
    return CheckpointManager(tmp_path / "checkpoints", keep_last=2)


def save(saver: AsyncCheckpointer, step: int, best: Best | None = None) -> None:
    """A checkpoint whose weights are its step."""
    saver.save(step, {"a": torch.full((5,), float(step))}, {"step.a": torch.tensor(1.0)}, {"step": step}, best)


class Gate:
    """Holds the writing thread back until it is opened; how many writers there were at once at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.open, self.inside, self.most = threading.Event(), threading.Event(), 0, 0
        original = CheckpointManager.save

        def held(store: CheckpointManager, *arguments: Any) -> Path:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.begun.set()
            assert self.open.wait(10)
            path = original(store, *arguments)
            self.inside -= 1
            return path

        monkeypatch.setattr(CheckpointManager, "save", held)


def test_what_changes_after_the_copy_is_not_saved(store: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, saver = Gate(monkeypatch), AsyncCheckpointer(store, ALONE)
    weights, optimizer = {"a": torch.arange(4.0)}, {"step.a": torch.ones(())}
    saver.save(1, weights, optimizer, {"progress": 1}, None)
    assert gate.begun.wait(10)
    assert store.steps() == []
    for tensors in (weights, optimizer):
        for tensor in tensors.values():
            tensor += 100  # the steps go on
    gate.open.set()
    saver.finalize()
    found = read_checkpoint(store.path(1))
    assert found.model["a"].tolist() == [0, 1, 2, 3]
    assert found.optimizer["step.a"] == 1


def test_one_writer_and_saves_in_their_order(store: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, saver = Gate(monkeypatch), AsyncCheckpointer(store, ALONE)
    save(saver, 1)
    assert gate.begun.wait(10)
    second = threading.Thread(target=save, args=(saver, 2))
    second.start()
    second.join(0.05)
    assert second.is_alive()  # it waits for the first
    gate.open.set()
    second.join(10)
    saver.finalize()
    assert gate.most == 1
    assert [read_checkpoint(store.path(step)).model["a"][0].item() for step in store.steps()] == [1, 2]


def test_closing_waits(store: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, saver = Gate(monkeypatch), AsyncCheckpointer(store, ALONE)
    save(saver, 1)
    threading.Timer(0.05, gate.open.set).start()
    saver.close()
    assert store.steps() == [1]


@pytest.mark.parametrize("kind", ["enospc", "eio", "estale", "erofs", "edquot"])
def test_a_save_is_tried_three_times(
    store: CheckpointManager, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("xlmtrain").propagate = True
    saver = AsyncCheckpointer(CheckpointManager(tmp_path / "checkpoints", keep_last=9), ALONE)
    for step in (1, 2):
        save(saver, step)
    saver.wait()
    failpoints.arm(f"save-write:2-3:0:{kind}", rank=0)  # the second file of the first try, the first of the second
    with caplog.at_level(logging.WARNING, "xlmtrain"):
        save(saver, 3)
        saver.finalize()
    assert caplog.text == ""
    assert store.steps() == ([2, 3] if kind in ("enospc", "edquot") else [1, 2, 3])  # space was freed if it was lacking


def test_disk_full_prunes_then_warns_then_ends(
    store: CheckpointManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("xlmtrain").propagate = True
    saver = AsyncCheckpointer(CheckpointManager(tmp_path / "checkpoints", keep_last=3), ALONE)
    for step in (1, 2, 3):
        save(saver, step, Best(2, "valid/mlm_ppl", 5.0))
    saver.wait()
    assert store.steps() == [1, 2, 3]
    failpoints.arm("save-write:1-:0:enospc", rank=0)
    for step, failures in ((4, 1), (5, 2)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "xlmtrain"):
            save(saver, step, Best(step, "valid/mlm_ppl", 4.0))
            saver.wait()
        (record,) = caplog.records
        assert f"training goes on ({failures} of 3): " in record.getMessage()
        assert "No space left on device); it needs 24 bytes, " in record.getMessage()
        assert store.steps() == [2, 3]  # the best and the last: what had to stay
        assert store.best_step() == 2
    assert not saver.has_failed()
    save(saver, 6)
    assert saver._job is not None
    wait([saver._job])
    assert saver.has_failed()
    with pytest.raises(CheckpointError, match="3 saves in a row failed, so the run ends; its last checkpoint is whole"):
        saver.wait()
    saver.close()
    assert store.steps() == [2, 3]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.json",
        "step-00000002",
        "step-00000003",
    ]


def test_a_save_that_works_begins_the_count_anew(store: CheckpointManager) -> None:
    saver = AsyncCheckpointer(store, ALONE)
    for step in range(1, 8):
        failpoints.arm("save-write:1-:0:enospc" if step % 3 else None, rank=0)  # two fail, one works
        save(saver, step, Best(step - step % 3 + 1, "valid/mlm_ppl", 1.0))  # the first of three, which failed
        saver.wait()
    assert store.steps() == [6]
    assert store.best_step() is None
    with pytest.raises(CheckpointError, match="step-00000007: not written"):  # the last one has to be there
        saver.finalize()


def test_best_json_names_the_best_of_a_save_before(store: CheckpointManager, tmp_path: Path) -> None:
    saver = AsyncCheckpointer(store, ALONE)
    save(saver, 1, Best(1, "valid/mlm_ppl", 3.0))
    save(saver, 2, Best(1, "valid/mlm_ppl", 3.0))
    saver.finalize()
    (tmp_path / "checkpoints" / "best.json").unlink()  # killed before it was written
    saver.update_best(Best(1, "valid/mlm_ppl", 3.0))
    saver.finalize()
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text(encoding="utf-8"))["step"] == 1
