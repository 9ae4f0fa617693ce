"""Disks that are full, slow, read-only or err; and pruning that is killed."""

from __future__ import annotations

import fcntl
import logging
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.fault_table import Tries
from tests.support.starts import SAVE_EVERY, Forked, digest, finish, half_written, last_step, settings, straight
from tests.support.training import checkpoint, records, status
from xlmtrain.runtime import failpoints
from xlmtrain.train.checkpoint import CheckpointManager

STEPS = 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 2 MB, in memory; skips where that may not be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill the file system up, but for ``left`` bytes in whole pages."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    ballast.write_bytes(bytes(max(free - left, 0)))
    return ballast


@pytest.mark.row(16, slow=3, full=20)
def test_disk_full_in_a_save(tries: Tries, tiny_dataset: Path, small_disk: Path, tmp_path: Path) -> None:
    """At a growing number of bytes of the save of step 10, from none to almost all; space is freed later, or never."""
    straight(tmp_path, tiny_dataset, STEPS, 1)
    size = sum(file.stat().st_size for file in checkpoint(tmp_path / "straight", STEPS).iterdir())
    for number in range(tries.count):
        never = number == tries.count - 1
        with tries.attempt(f"{number} of {tries.count}, {'for good' if never else 'for a while'}"):
            # What is printed goes beside the run, to another disk.
            run, place = tmp_path / f"run{number}", small_disk / f"run{number}"
            place.mkdir()
            run.symlink_to(place)
            config = settings(run, tiny_dataset, 60 if never else STEPS, train__keep_last=1)
            with Forked(config, 1, fault="step:8:0:stop,step:16:0:sleep=1") as start:
                start.until_stopped(0)
                ballast = fill(small_disk, size * number // tries.count)
                start.signal(signal.SIGCONT)
                start.until(lambda: "step-00000010: not written" in start.printed(), "a failed save")
                said = start.printed()
                assert re.search(r"step-00000010: not written .*needs [\d,]+ bytes, [\d,]+ are free", said), said
                newest = CheckpointManager(start.run / "checkpoints", 1).latest()
                assert newest is not None, "no checkpoint is left"
                assert newest.state["progress"]["step"] == SAVE_EVERY
                if not never:
                    ballast.unlink()
                code = start.wait()
            if never:
                assert code == [4]
                assert "3 saves in a row failed, so the run ends; its last checkpoint is whole" in start.printed()
                assert status(config.run)["status"] == "failed"
                ballast.unlink()
                finish(config)
            else:
                assert code == [0]
                assert not list((start.run / "checkpoints").glob(".step-*")), "remains of a save"
                # a figure or two may be missing; the model is the same
                ours, theirs = (
                    checkpoint(run, STEPS) / "model.safetensors" for run in (config.run, tmp_path / "straight")
                )
                assert ours.read_bytes() == theirs.read_bytes()
            shutil.rmtree(place)


@pytest.mark.row(17, quick=1, slow=2, full=4)
def test_disk_full_for_figures(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """No figure of the middle, or of the end of the run can be written: one warning, the model is the same."""
    straight(tmp_path, tiny_dataset, STEPS, 1)
    theirs = checkpoint(tmp_path / "straight", STEPS) / "model.safetensors"
    cases = [("3-", "enospc"), ("5-15", "enospc"), ("1-", "eio"), ("2-", "edquot")]
    for times, error in cases[: tries.count]:
        with tries.attempt(f"{error}, records {times}"):
            config = settings(tmp_path / f"{times}-{error}", tiny_dataset, STEPS)
            with Forked(config, 1, fault=f"metrics:{times}:0:{error}") as start:
                assert start.wait() == [0]
            assert start.printed().count("metrics are missing from") == 1
            assert (checkpoint(config.run, STEPS) / "model.safetensors").read_bytes() == theirs.read_bytes()
            assert len(records(config.run)) < len(records(tmp_path / "straight"))


@pytest.mark.row(21, quick=1, slow=5, full=15)
def test_storage_that_errs(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Once or twice: tried again, nothing is lost. In three saves in a row: the run ends, its last one whole."""
    kinds = ("erofs", "eio", "estale", "edquot")
    expected = straight(tmp_path, tiny_dataset, STEPS, 1)
    places = ("save-open", "save-write", "save-sync", "save-rename", "save-renamed")
    cases = [(kind, place) for place in places for kind in kinds[:3]]
    for number, (kind, place) in enumerate(cases[: tries.count]):
        lasting = number % 5 == 4
        with tries.attempt(f"{kind} at {place}, {'lasting' if lasting else 'twice'}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, STEPS)
            first = 3 if place == "save-write" else 2
            with Forked(config, 1, fault=f"{place}:{first}{'-' if lasting else f'-{first + 1}'}:0:{kind}") as start:
                code = start.wait()
            if lasting:
                assert code == [4], start.printed()[-2000:]
                assert "3 saves in a row failed" in start.printed()
                assert CheckpointManager(start.run / "checkpoints", 2).latest() is not None
                finish(config)
            else:
                assert code == [0], start.printed()[-2000:]
            assert digest(config.run, STEPS, 1) == expected
            assert not list((start.run / "checkpoints").glob(".step-*.partial"))


@pytest.mark.row(35, quick=1, slow=4, full=10)
def test_data_that_cannot_be_read(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """On one of two processes. Once or twice: tried again, nothing is lost. Thrice: every process ends at the same
    step, the one before is saved, and the run goes on as if nothing had been."""
    expected = straight(tmp_path, tiny_dataset, STEPS, 2)
    for number in range(tries.count):
        kind, rank, lasting = ("eio", "estale")[number // 2 % 2], number // 4 % 2, number % 2 == 1
        # For the steps: reads 165 to 251 of rank 0, 48 to 110 of rank 1.
        first = (167, 50)[rank] + 7 * number
        with tries.attempt(f"{kind} from read {first} of rank {rank} on, {'lasting' if lasting else 'twice'}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, STEPS)
            fault = f"read:{first}{'-' if lasting else f'-{first + 1}'}:{rank}:{kind}"
            with Forked(config, 2, fault=fault) as start:
                codes = start.wait()
            assert "tried again in 1.0 s" in start.printed(rank), start.printed()[-2000:]
            if lasting:
                assert codes == [3, 3], start.printed()[-2000:]
                assert re.search(r"(train|valid)\.\S+: .*, three times", start.printed(rank))
                # In a step, or in an evaluation.
                message = f"another process cannot read its data|rank {rank} failed: DataError: .*, three times"
                assert re.search(message, start.printed(1 - rank))
                assert status(config.run)["status"] == "failed"
                newest = CheckpointManager(start.run / "checkpoints", 2).latest()
                assert newest is not None
                assert 0 < last_step(start.run) == newest.state["progress"]["step"] <= STEPS
                finish(config, 2)
            else:
                assert codes == [0, 0], start.printed()[-2000:]
            assert digest(config.run, STEPS, 2) == expected


@pytest.mark.row(22, slow=1, full=5)
def test_slow_storage(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """A save takes seconds, in the background: the steps go on meanwhile, and SIGTERM waits for it to be whole."""
    went_on = []
    for number in range(tries.count):
        with tries.attempt(f"try {number}"):
            changes = {"train__save_every": 100, "evaluate__every": 0}
            config = settings(tmp_path / f"run{number}", tiny_dataset, 10_000, **changes)
            with Forked(config, 2, fault="save-write:1:0:sleep=3") as start:
                start.until(lambda: half_written(start.run), "a save")
                begun = last_step(start.run)
                start.until_step(begun + 3 + number)
                assert half_written(start.run), "the steps stood still"
                went_on.append(last_step(start.run) - begun)
                start.signal(signal.SIGTERM)
                assert start.wait() == [128 + signal.SIGTERM] * 2
            steps = CheckpointManager(start.run / "checkpoints", 2).steps()
            assert steps == [100, last_step(start.run)]
            figures = [record for record in records(config.run, timed=True) if "train/loss" in record]
            assert [figure["step"] for figure in figures] == list(range(1, steps[-1] + 1))
    tries.figure(f"up to {max(went_on, default=0)} steps and the signal came in the midst of a save of 3 s")


class Killed(BaseException):
    """The process is gone."""


def _save(store: CheckpointManager, step: int) -> None:
    tensor = torch.full((3,), float(step))
    store.save(step, {"a": tensor}, {"step.a": tensor}, {"progress": {"step": step}})


@pytest.mark.row(23, quick=20, slow=100, full=500)
def test_sequences_of_saves_and_prunes(tries: Tries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of thirty operations: saved, marked best, pruned, damaged, read meanwhile, killed at any point of these.

    After each, the newest intact checkpoint is found; there always is one; what must be kept is kept; what is read
    stays.
    """
    points = ("save-open", "save-write", "save-sync", "save-rename", "save-renamed", "save-best", "prune")
    kills = 0
    logging.getLogger("xlmtrain").setLevel(logging.CRITICAL)
    for seed in range(tries.count):
        rng = random.Random(seed)
        keep_last, keep_every = rng.randint(1, 3), rng.choice([0, 4, 6])
        place = tmp_path / "checkpoints"
        store = CheckpointManager(place, keep_last, keep_every)
        step, intact = 1, set()
        monkeypatch.setattr(failpoints, "_due", lambda point: [])  # the last sequence's may still strike
        with tries.attempt(f"sequence {seed}"):
            _save(store, step)
            intact.add(step)
            for _ in range(30):
                dying = rng.random() < 0.3
                target = rng.choice(points) if dying else ""

                def due(point: str, target: str = target, rng: random.Random = rng) -> list[Any]:
                    if point == target and rng.random() < 0.7:
                        raise Killed
                    return []

                monkeypatch.setattr(failpoints, "_due", due)
                action = rng.choice(["save", "save", "save", "best", "prune", "prune", "damage"])
                reading = place / f"step-{rng.choice(sorted(intact)):08d}" / "manifest.json"
                try:
                    if action == "save":
                        step += rng.randint(1, 2)
                        _save(store, step)
                        intact.add(step)
                    elif action == "best":
                        store.mark_best(rng.choice(store.steps()), "valid/mlm_ppl", 1.0)
                    elif action == "prune":
                        keep = set(store.steps()[-keep_last:])
                        keep |= {kept for kept in store.steps() if keep_every and kept % keep_every == 0}
                        try:
                            with _reader(reading, active=rng.random() < 0.3) as held:
                                store.prune(step)
                                assert not held or reading.exists(), "deleted while it was read"
                        finally:
                            there = set(store.steps())
                            assert keep <= there, f"{keep} were to be kept, {there} are there"
                            intact &= there
                            assert intact, "none of those that are left is intact"
                    elif len(intact) > 1:
                        victim = rng.choice(sorted(intact))
                        (store.path(victim) / "state.json").write_text("{}", encoding="utf-8")
                        intact.discard(victim)
                except Killed:
                    kills += 1
                    store = CheckpointManager(place, keep_last, keep_every)  # the next start
                found = store.latest()
                assert found is not None, "no checkpoint is left"
                newest = found.state["progress"]["step"]
                assert newest >= max(intact), f"the newest intact one was {max(intact)}, now it is {newest}"
                intact = {s for s in store.steps() if s in intact or s == newest}
        shutil.rmtree(place, ignore_errors=True)
    tries.figure(f"{kills} kills in them")


@contextmanager
def _reader(manifest: Path, active: bool) -> Iterator[bool]:
    """Hold a checkpoint as ``read_checkpoint`` does while it reads, or do not."""
    with manifest.open("rb") as stream:
        if active:
            fcntl.flock(stream, fcntl.LOCK_SH)
        yield active
