"""Checkpoints are whole or not there; every damage is found."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import xlmtrain.train.checkpoint_io
from xlmtrain.errors import CheckpointError
from xlmtrain.runtime import failpoints
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.checkpoint_io import read_checkpoint

FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "state.json")


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((4, 3), float(step)), "b.weight": torch.arange(5.0)}


def save(store: CheckpointManager, step: int) -> Path:
    return store.save(step, tensors(step), {"step.a": torch.tensor(float(step))}, {"progress": {"step": step}})


@pytest.fixture
def store(tmp_path: Path) -> CheckpointManager:
    return CheckpointManager(tmp_path / "checkpoints", keep_last=2)


def names(store_directory: Path) -> list[str]:
    return sorted(path.name for path in store_directory.iterdir())


def test_what_is_saved_is_read(store: CheckpointManager, tmp_path: Path) -> None:
    path = save(store, 3)
    assert path == tmp_path / "checkpoints" / "step-00000003"
    assert names(path) == sorted(FILES)
    found = store.latest()
    assert found is not None
    assert (found.path, found.state) == (path, {"progress": {"step": 3}})
    assert found.model.keys() == tensors(3).keys()
    assert all(torch.equal(value, found.model[name]) for name, value in tensors(3).items())
    assert found.optimizer["step.a"].item() == 3.0


def test_nothing_saved_is_none(store: CheckpointManager) -> None:
    assert store.latest() is None
    assert store.steps() == []


def test_saving_a_step_again_replaces_it(store: CheckpointManager) -> None:
    save(store, 3)
    store.save(3, tensors(9), {}, {})
    assert store.latest().model["a"][0, 0] == 9  # type: ignore[union-attr]


def test_a_manifest_that_fits_a_file_of_another_kind(store: CheckpointManager) -> None:
    path = save(store, 1)
    (path / "model.safetensors").write_bytes(b"something else")
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    entry = {"bytes": 14, "sha256": hashlib.sha256(b"something else").hexdigest()}
    (path / "manifest.json").write_text(json.dumps({**manifest, "model.safetensors": entry}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file"):
        read_checkpoint(path)


def damages(path: Path) -> dict[str, Path]:
    """Copies of the checkpoint ``path``, each damaged in one way."""
    rng = np.random.default_rng(0)
    made = {}

    def copy(name: str) -> Path:
        made[name] = path.parents[1] / "damaged" / name / path.name
        return Path(shutil.copytree(path, made[name]))

    for file in FILES:
        (copy(f"{file} removed") / file).unlink()
        whole = (path / file).read_bytes()
        for size in (0, len(whole) // 2, len(whole) - 1):
            (copy(f"{file} cut to {size}") / file).write_bytes(whole[:size])
        for place in {0, len(whole) - 1, *rng.integers(len(whole), size=15).tolist()}:
            content = bytearray(whole)
            content[place] ^= 1 << int(rng.integers(8))
            (copy(f"{file} flipped at {place}") / file).write_bytes(content)
    return made


def test_every_damage_is_found(store: CheckpointManager) -> None:
    path = save(store, 1)
    intact = read_checkpoint(path)
    found = damages(path)
    assert len(found) > 70
    for name, damaged in found.items():
        file = name.split()[0]
        if file != "manifest.json":
            with pytest.raises(CheckpointError, match=re.escape(str(damaged / file))):
                read_checkpoint(damaged)
            continue
        try:
            read = read_checkpoint(damaged)
        except CheckpointError:
            continue
        # What is left of the manifest still says all, as without its last line break
        assert read.state == intact.state
        assert all(torch.equal(value, read.model[key]) for key, value in intact.model.items())


@pytest.mark.parametrize("damage", ["model.safetensors removed", "state.json cut to 0", "manifest.json removed"])
def test_a_damaged_checkpoint_is_passed_over(
    store: CheckpointManager, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    save(store, 1)
    path = save(store, 2)
    replacement = damages(path)[damage]
    shutil.rmtree(path)
    shutil.copytree(replacement, path)
    with caplog.at_level(logging.WARNING, "xlmtrain"):
        logging.getLogger("xlmtrain").propagate = True
        found = store.latest()
    assert found is not None
    assert found.state == {"progress": {"step": 1}}
    assert f"checkpoint passed over: {path / damage.split()[0]}" in caplog.text


def test_all_damaged_names_each(store: CheckpointManager) -> None:
    paths = [save(store, step) for step in (1, 2)]
    for path in paths:
        (path / "state.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        store.latest()
    assert caught.value.exit_code == 4
    assert all(str(path / "state.json") in str(caught.value) for path in paths)
    assert "train.overwrite=true" in str(caught.value)


def test_prune_keeps_the_last_and_the_best(store: CheckpointManager, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        save(store, step)
        if step == 2:
            store.mark_best(2, "valid/mlm_ppl", 1.5)
        store.prune(step)
    assert store.steps() == [2, 4, 5]
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text(encoding="utf-8")) == {
        "step": 2,
        "metric": "valid/mlm_ppl",
        "value": 1.5,
    }
    store.mark_best(5, "valid/mlm_ppl", 1.25)
    store.prune(5)
    assert (store.steps(), store.best_step()) == ([4, 5], 5)


def test_prune_never_leaves_damaged_checkpoints_alone(tmp_path: Path) -> None:
    """A run that fell back from damaged later checkpoints must not throw away what it saves then."""
    store = CheckpointManager(tmp_path / "checkpoints", keep_last=1)
    save(store, 10)
    (save(store, 20) / "state.json").write_bytes(b"")
    assert store.latest().state == {"progress": {"step": 10}}  # type: ignore[union-attr]
    save(store, 12)
    store.prune(12)
    assert store.latest().state == {"progress": {"step": 12}}  # type: ignore[union-attr]


@pytest.mark.parametrize("broken", ["save_file", "write_json", "sync_file"])
def test_a_failed_save_leaves_the_one_before_and_no_remains(
    store: CheckpointManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    save(store, 1)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xlmtrain.train.checkpoint_io, broken, full)
    with pytest.raises(
        CheckpointError, match=r"step-00000002: not written \(.*No space left.*\); it needs 72 bytes, [\d,]+"
    ):
        save(store, 2)
    monkeypatch.undo()
    assert names(tmp_path / "checkpoints") == ["step-00000001"]
    assert store.latest().state == {"progress": {"step": 1}}  # type: ignore[union-attr]


def test_a_file_that_may_not_grow_any_more(store: CheckpointManager, tmp_path: Path) -> None:
    """The kernel itself refuses to write, in the middle of a file: as a full disk or a quota does."""
    save(store, 1)
    large = {"a": torch.zeros(100_000)}
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="it needs 400,000 bytes"):
            store.save(2, large, {}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path / "checkpoints") == ["step-00000001"]
    assert store.latest().state == {"progress": {"step": 1}}  # type: ignore[union-attr]


def test_remains_of_a_killed_save_are_no_checkpoint_and_go_with_the_next(
    store: CheckpointManager, tmp_path: Path
) -> None:
    save(store, 1)
    remains = tmp_path / "checkpoints" / ".step-00000002.partial"
    remains.mkdir()
    (remains / "model.safetensors").write_bytes(b"half")
    assert store.steps() == [1]
    save(store, 3)
    assert names(tmp_path / "checkpoints") == ["step-00000001", "step-00000003"]


def test_multiples_are_kept_for_ever(tmp_path: Path) -> None:
    store = CheckpointManager(tmp_path / "checkpoints", keep_last=1, keep_every=4)
    for step in range(1, 11):
        save(store, step)
        store.prune(step)
    assert store.steps() == [4, 8, 10]
    store.prune(10, keep_last=1)
    assert store.steps() == [4, 8, 10]


def test_the_only_sound_checkpoint_is_never_deleted(store: CheckpointManager, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        save(store, step)
    for step in (3, 4, 5):
        (store.path(step) / "model.safetensors").write_bytes(b"")
    store.mark_best(3, "valid/mlm_ppl", 1.0)
    assert store.prune(5) == [1]  # 4 and 5 are the last, 3 the best; none of them is intact
    assert store.latest().state == {"progress": {"step": 2}}  # type: ignore[union-attr]


@pytest.mark.parametrize("content", ["{", "null", '{"step": "x"}'])
def test_a_best_json_that_cannot_be_read_deletes_nothing(
    store: CheckpointManager, tmp_path: Path, content: str
) -> None:
    for step in (1, 2, 3):
        save(store, step)
    (tmp_path / "checkpoints" / "best.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"best\.json: "):
        store.best_step()
    assert store.prune(3) == []
    assert store.steps() == [1, 2, 3]


def test_what_is_being_read_is_not_deleted(store: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        save(store, step)
    load_file, deleted = xlmtrain.train.checkpoint_io.load_file, []

    def prune_meanwhile(path: Path) -> dict[str, torch.Tensor]:
        deleted.append(store.prune(3))
        return load_file(path)

    monkeypatch.setattr(xlmtrain.train.checkpoint_io, "load_file", prune_meanwhile)
    assert read_checkpoint(store.path(1)).state == {"progress": {"step": 1}}
    assert deleted == [[], []]
    assert store.prune(3) == [1]


@pytest.mark.parametrize("point", ["save-open", "save-write", "save-sync", "save-rename", "save-renamed"])
def test_a_checkpoint_is_replaced_whole(tmp_path: Path, point: str) -> None:
    """The process is killed while it saves a step that is there already: one of the two is whole."""
    directory = tmp_path / "checkpoints"
    save(CheckpointManager(directory, keep_last=1), 3)
    child = os.fork()
    if child == 0:
        failpoints.arm(f"{point}:1:0:kill", rank=0)
        CheckpointManager(directory, keep_last=1).save(3, tensors(9), {}, {"progress": {"step": 3}})
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    store = CheckpointManager(directory, keep_last=1)
    assert store.steps() == [3]
    assert store.latest().model["a"][0, 0] == (9 if point == "save-renamed" else 3)  # type: ignore[union-attr]
    save(store, 4)
    assert store.steps() == [3, 4]
    assert names(directory) == ["step-00000003", "step-00000004"]


def test_between_the_two_renames_the_old_one_is_found(
    store: CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 3)
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if str(source).endswith(".partial"):
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        store.save(3, tensors(9), {}, {})
    monkeypatch.undo()
    assert store.steps() == [3]
    assert store.latest().model["a"][0, 0] == 3  # type: ignore[union-attr]
    save(store, 4)
    assert store.path(3).name == "step-00000003"


def test_killed_while_deleting(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    store = CheckpointManager(directory, keep_last=1)
    for step in (1, 2):
        save(store, step)
    child = os.fork()
    if child == 0:
        failpoints.arm("prune:1:0:kill", rank=0)
        store.prune(2)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert store.steps() == [2]
    save(store, 3)
    assert names(directory) == ["step-00000002", "step-00000003"]
