"""Checkpoints that are damaged, old, or of a run with other settings."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import xlmtrain
from tests.support.fault_table import Tries
from tests.support.repository import REPOSITORY
from tests.support.starts import settings
from tests.support.tiny import write_tiny_dataset
from tests.support.training import checkpoint, records, state, status, train_alone
from xlmtrain.config.load import from_json
from xlmtrain.config.old_names import current_settings
from xlmtrain.config.optim import Schedule
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.errors import CheckpointError, ConfigError, UserError
from xlmtrain.runtime.atomic_io import read_json
from xlmtrain.train.checkpoint import CheckpointManager

FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "state.json")


@pytest.fixture(scope="module")
def intact(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 5 and 7."""
    run = tmp_path_factory.mktemp("intact") / "run"
    train_alone(settings(run, tiny_dataset, 30), stop_after=7)
    return run


@pytest.fixture
def damaged(intact: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(intact, tmp_path / "run"))


def assert_passed_over(run: Path, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The damage to a file of step 7 is found and reported, and step 5 is read; or what is read is as it was."""
    caplog.clear()
    found = CheckpointManager(run / "checkpoints", keep_last=2).latest()
    assert found is not None
    if "checkpoint passed over" in caplog.text:
        assert f"checkpoint passed over: {file.parent}" in caplog.text
        assert found.state["progress"]["step"] == 5
    else:  # a manifest without its last line break, or with 7 in the place of "7e0", says the same
        assert file.name == "manifest.json", "not noticed"
        assert found.state["progress"]["step"] == 7


@pytest.mark.row(18, quick=40, slow=300, full=300)
def test_a_flipped_bit(tries: Tries, damaged: Path, xlmtrain_log: pytest.LogCaptureFixture) -> None:
    """At random places over all four files, each file as often as the others."""
    rng = random.Random(18)
    path = checkpoint(damaged, 7)
    for number in range(tries.count):
        file = path / FILES[number % 4]
        whole = file.read_bytes()
        place, bit = rng.randrange(len(whole)), rng.randrange(8)
        with tries.attempt(f"{file.name}, bit {bit} of byte {place}"):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            file.write_bytes(content)
            assert_passed_over(damaged, file, xlmtrain_log)
        file.write_bytes(whole)


@pytest.mark.row(19, quick=28, slow=112, full=112)
def test_a_file_cut_emptied_or_removed(tries: Tries, damaged: Path, xlmtrain_log: pytest.LogCaptureFixture) -> None:
    """Each file removed, empty, without its last byte; the others cut at random. The manifest, too."""
    rng = random.Random(19)
    path = checkpoint(damaged, 7)
    for number in range(tries.count):
        file = path / FILES[number % 4]
        whole = file.read_bytes()
        kind = number // 4
        size = {0: -1, 1: 0, 2: len(whole) - 1}.get(kind, rng.randrange(1, len(whole)))
        with tries.attempt(f"{file.name}, {size} bytes left"):
            if size < 0:
                file.unlink()
            else:
                file.write_bytes(whole[:size])
            assert_passed_over(damaged, file, xlmtrain_log)
        file.write_bytes(whole)


@pytest.mark.row(20, quick=4, slow=4, full=4)
def test_all_checkpoints_bad(tries: Tries, damaged: Path, tiny_dataset: Path) -> None:
    """Never overwritten by itself: each damage is named, nothing is deleted; ``train.overwrite=true`` starts again."""
    config = settings(damaged, tiny_dataset, 30)
    broken = [checkpoint(damaged, 5) / "model.safetensors", checkpoint(damaged, 7) / "state.json"]
    for file in broken:
        file.write_bytes(file.read_bytes()[:-1])
    for number in range(tries.count - 1):
        with tries.attempt(f"start {number}"):
            with pytest.raises(CheckpointError, match="every checkpoint of the run is damaged") as caught:
                train_alone(config)
            assert caught.value.exit_code == 4
            assert all(str(file) in str(caught.value) for file in broken)
            assert "train.overwrite=true" in str(caught.value)
            assert status(damaged)["status"] == "failed"
            assert checkpoint(damaged, 5).is_dir()
    with tries.attempt("fresh"):
        config.train.overwrite = True
        assert train_alone(config, stop_after=1).status == "preempted"
        assert state(damaged, 1)["progress"]["step"] == 1


RELEASES = sorted((REPOSITORY / "tests" / "fixtures").glob("release-*"))


@pytest.mark.row(24, quick=1, slow=1, full=1)
def test_a_checkpoint_of_each_release(tries: Tries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model can be used, and the run goes on: the losses are those that the release itself went on with."""
    assert len(RELEASES) == tries.count
    for release in RELEASES:
        with tries.attempt(release.name):
            assert sum(file.stat().st_size for file in release.rglob("*") if file.is_file()) <= 200_000
            copy = Path(shutil.copytree(release, tmp_path / release.name))
            monkeypatch.chdir(copy)
            assert len(xlmtrain.load("run", device="cpu").score(["a b"], lang="de")) == 1
            config = from_json(Config, current_settings(read_json(Path("run/config.json"))))
            assert train_alone(config).status == "done"
            assert "resumed from run/checkpoints/step-00000009" in Path("run/log.txt").read_text(encoding="utf-8")
            expected = json.loads(Path("expected.json").read_text(encoding="utf-8"))
            found = {str(r["step"]): r["train/loss"] for r in records("run") if "train/loss" in r and r["step"] > 9}
            assert found == pytest.approx(expected, rel=1e-4)
    tries.figure(", ".join(release.name.removeprefix("release-") for release in RELEASES))


ALLOWED: list[dict[str, Any]] = [
    {"optim.lr": 1e-3},
    {"optim.schedule": Schedule.linear},
    {"optim.weight_decay": 0.1},
    {"train.steps": 60},
    {"train.save_every": 3},
    {"train.log_every": 2},
    {"train.keep_last": 5},
    {"train.micro_batch_tokens": 32},
    {"train.precision": Precision.bf16},
    {"evaluate.every": 3},
]
REFUSED: list[dict[str, Any]] = [
    {"model.layers": 2},
    {"model.dim": 64},
    {"data.mlm": {"de": 1.0}},
    {"data.sequence_length": 8},
    {"mask.prob": 0.3},
    {"train.batch_tokens": 512},
    {"seed": 1},
    {"evaluate.pairs_per_batch": 4},
    {"evaluate.metric": "valid/mlm_acc"},
]


@pytest.mark.row(25, quick=20, slow=20, full=20)
def test_resume_with_changed_settings(tries: Tries, intact: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """Harmless ones are logged; others are refused with old and new value, and nothing is touched."""
    other = write_tiny_dataset(tmp_path / "other", seed=2)  # of the same shape
    for number, change in enumerate([*ALLOWED, *REFUSED, {"data.path": str(other)}]):
        (key, value), *_ = change.items()
        run = Path(shutil.copytree(intact, tmp_path / f"run{number}"))
        config = settings(run, tiny_dataset, 30, **{key.replace(".", "__"): value})
        old = records(run)
        with tries.attempt(key):
            if change in ALLOWED:
                assert train_alone(config, stop_after=1).status == "preempted"
                log = (run / "log.txt").read_text(encoding="utf-8")
                assert re.search(rf"setting changed since the last start: {re.escape(key)}: \S+ -> \S+", log)
                assert state(run, 8)["progress"]["step"] == 8
                continue
            with pytest.raises((ConfigError, UserError)) as caught:
                train_alone(config)
            named = "the data: fingerprint" if key == "data.path" else key
            assert re.search(rf"\n  {re.escape(named)}\S*:? .*->", str(caught.value)), str(caught.value)
            assert records(run) == old
            assert checkpoint(run, 7).is_dir()
