"""The power fails in the midst of a save: what was not yet synced to the disk may be lost, in part or as a whole."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.support.fault_table import Tries
from tests.support.power import Disk
from tests.support.starts import settings
from tests.support.training import checkpoint, train_alone
from xlmtrain.config.schema import Config
from xlmtrain.train.checkpoint import CheckpointManager

SEED = 3
MODEL = "model.safetensors"


def _config(run: Path, data: Path) -> Config:
    changes = {"train__keep_last": 1, "train__save_every": 4, "model__dim": 16}
    return settings(run, data, 16, **changes)


@pytest.mark.row(3, quick=15, slow=100, full=300)
def test_power_loss(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """At points spread evenly over a run's file operations. What was safe stays safe; what is read is whole.

    One crash state in fifteen is gone on with to the end of the run, too.
    """
    config = _config(tmp_path / "run", tiny_dataset)
    train_alone(config, stop_after=5)
    disk = Disk(Path(config.run))
    with disk.recording():
        train_alone(config)
    assert disk.operations > 60
    models = {16: (checkpoint(config.run, 16) / MODEL).read_bytes()}
    rng, safe = random.Random(SEED), 0
    for number in range(tries.count):
        moment, kind = disk.operations * number // tries.count, number % 3
        with tries.attempt(f"operation {moment} of {disk.operations}, {'chance' if kind else 'only what was safe'}"):
            state = tmp_path / f"state{number}"
            disk.crash(moment, state, rng if kind else None)
            found = CheckpointManager(state / "checkpoints", keep_last=1).latest()
            assert found is not None, "no checkpoint is left"
            step = int(found.state["progress"]["step"])
            assert step >= safe, f"the checkpoint of step {safe} was safe before, now that of step {step} is the newest"
            safe = safe if kind else step
            content = (found.path / MODEL).read_bytes()
            assert models.setdefault(step, content) == content, "another model"
            if number % 15 == 7:
                assert train_alone(_config(state, tiny_dataset)).status == "done"
                assert (checkpoint(state, 16) / MODEL).read_bytes() == models[16]
        shutil.rmtree(state, ignore_errors=True)
    assert safe >= 12
    tries.figure(f"{disk.operations} file operations, {len(models)} checkpoints")
