"""One rank that fails, hangs, or is not what the others are; and two jobs in one directory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.fault_table import Tries
from tests.support.repository import REPOSITORY
from tests.support.starts import Forked, digest, finish, last_step, settings, straight
from tests.support.tiny import write_tiny_dataset
from tests.support.torchrun import Torchrun
from tests.support.training import status
from xlmtrain.config.schema import Config
from xlmtrain.runtime.atomic_io import read_json, write_json
from xlmtrain.runtime.lock import STALE
from xlmtrain.train import resume_policy

STEPS = 30


@pytest.mark.row(8, quick=1, slow=1, full=2)
def test_an_exception_on_one_rank(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """It is named, the other rank ends too, and the same command goes on."""
    expected = straight(tmp_path, tiny_dataset, STEPS)
    for number in range(tries.count):
        rank, step = 1 - number, 7 + 6 * number
        with tries.attempt(f"rank {rank}, step {step}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, STEPS)
            begun = time.monotonic()
            with Forked(config, 2, fault=f"step:{step}:{rank}:raise") as start:
                assert start.wait() == [1, 1]
            assert time.monotonic() - begun <= 30
            made_of = r"(\S+ epoch \d+ sub-batch \d+(, )?){4}"
            said = (
                rf"rank {rank} of run={re.escape(config.run)} failed in step {step}, made of {made_of} .*: RuntimeError"
            )
            assert re.search(said, start.printed(rank)), start.printed(rank)
            assert status(config.run)["status"] == "failed"
            assert "RuntimeError: a fault on purpose: step" in status(config.run)["reason"]
            assert f"rank {rank}: " in status(config.run)["reason"] or rank == 0
            finish(config, 2)
            assert digest(config.run, STEPS, 2) == expected


@pytest.mark.row(8, slow=1, full=4)
def test_torchrun_starts_it_again(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Without restarts torchrun ends within half a minute; with them the run ends as if nothing had been."""
    straight(tmp_path, tiny_dataset, STEPS)
    longest = 0.0
    for number in range(tries.count):
        restarts = 3 * (number % 2 == 0)
        with tries.attempt(f"{restarts} restarts, {number}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, STEPS)
            with Torchrun(config, f"--max-restarts={restarts}", fault=f"step:{7 + number}:1:raise") as start:
                start.until(lambda start=start: "rank 1 of run=" in start.printed(), "error")  # type: ignore[misc]
                failed = time.monotonic()
                code = start.wait()
            assert re.search(rf"rank 1 of run=\S+ failed in step {7 + number}, made of \S+ epoch", start.printed())
            if restarts:
                assert code == 0, start.printed()[-3000:]
                assert digest(config.run, STEPS, 0) == digest(tmp_path / "straight", STEPS, 0)
                continue
            longest = max(longest, time.monotonic() - failed)
            assert code == 1
            assert longest <= 30
            assert re.match(r"rank 1: RuntimeError: a fault on purpose", status(config.run)["reason"])
    if tries.count > 1:
        tries.figure(f"without restarts torchrun ended {longest:.1f} s after the exception at most")


TIMEOUT = 5.0
GRACE = 30
"""Seconds that torchrun gives the others to end when a process has failed, then it kills them; ``--shutdown-timeout``
is for signals to torchrun only (torch 2.13)."""


@pytest.mark.row(9, slow=1, full=4)
def test_a_rank_that_hangs(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """One that was stopped (SIGSTOP), and one that waits for ever.

    A process that the system has stopped cannot say where it stands: all others do.
    """
    straight(tmp_path, tiny_dataset, STEPS)
    longest = 0.0
    cases = [("sleep=600", 1, 7), ("stop", 1, 9), ("stop", 0, 4), ("sleep=600", 0, 2)]
    for action, rank, step in cases[: tries.count]:
        with tries.attempt(f"{action}, rank {rank}, step {step}"):
            name = f"{action.partition('=')[0]}-{rank}"
            config = settings(tmp_path / name, tiny_dataset, STEPS, train__hang_timeout=TIMEOUT)
            with Torchrun(config, fault=f"step:{step}:{rank}:{action}") as start:
                start.until(lambda run=start.run, step=step: last_step(run) >= step - 1, "step")  # type: ignore[misc]
                hung = time.monotonic()
                code = start.wait()
                took = time.monotonic() - hung
            longest = max(longest, took)
            printed = start.printed()
            assert code != 0
            assert (
                "no progress for 5 seconds (train.hang_timeout); this is where every thread of the process st"
                in printed
            )
            stacks = printed.partition("this is where every thread")[2]  # of both processes, perhaps one into the other
            assert "all_reduce" in stacks, printed
            assert ("failpoints.py" in stacks) == (action != "stop"), printed
            assert took <= TIMEOUT + GRACE + 5, f"it took {took:.1f} s"
            if rank or action != "stop":
                assert status(config.run)["status"] == "failed"
            finish(config, 2)
            assert digest(config.run, STEPS, 0) == digest(tmp_path / "straight", STEPS, 0)
    tries.figure(
        f"torchrun ended at most {longest:.0f} s after the last step, {TIMEOUT:.0f} + {GRACE} s being its limits"
    )


def _own_directory(parent: Path, rank: int) -> None:
    os.chdir(parent / f"host{min(rank, 1)}")


def _own_code(parent: Path, rank: int) -> None:
    resume_policy.__file__ = str(parent / f"host{min(rank, 1)}" / "xlmtrain" / "train" / "resume_policy.py")


def _own_torch(rank: int) -> None:
    torch.__version__ = f"2.1{min(rank, 1)}.0"  # type: ignore[assignment]


@pytest.mark.row(10, quick=2, slow=5, full=10)
def test_ranks_that_differ(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """In a setting, in the data under the same path, in the code, in torch: refused before the directory is touched."""
    for number in (0, 1):
        host = tmp_path / f"host{number}"
        host.mkdir()
        write_tiny_dataset(host / "data", seed=1 + number)
        shutil.copytree(REPOSITORY / "xlmtrain", host / "xlmtrain", ignore=shutil.ignore_patterns("__pycache__"))
    with (host / "xlmtrain" / "objective.py").open("a", encoding="utf-8") as stream:
        stream.write("# another state of the code\n")

    def given(data: Path = tiny_dataset, **changes: Any) -> Config:
        return settings(tmp_path / "run", data, STEPS, **changes)

    variants: list[tuple[str, dict[int, Config], Callable[[int], None] | None]] = [
        ("optim.lr", {0: given(optim__lr=1.0)}, None),
        ("the data", {}, partial(_own_directory, tmp_path)),
        ("the code", {}, partial(_own_code, tmp_path)),
        ("torch", {}, _own_torch),
        ("model.layers", {0: given(model__layers=2)}, None),
    ]
    longest = 0.0
    for number in range(tries.count):
        key, configs, before = variants[number % len(variants)]
        ranks = 2 if number < len(variants) else 4
        with tries.attempt(f"{key}, {ranks} ranks"):
            begun = time.monotonic()
            config = given(Path("data")) if key == "the data" else given()
            with Forked(config, ranks, configs=configs, before=before) as start:
                assert start.wait() == [2] * ranks, start.printed()
            longest = max(longest, time.monotonic() - begun)
            assert longest <= 10, f"it took {longest:.1f} s"
            others = ", ".join(map(str, range(1, ranks)))
            for rank in range(ranks):
                said = start.printed(rank)
                assert "error: settings, data or versions: not the same on all processes:" in said
                named = re.findall(r"^  ([^:]+): .+ on rank 0; .+ on rank ([\d, ]+)$", said, re.MULTILINE)
                assert named == [(key, others)], said
            assert not start.run.exists()
    tries.figure(f"refused {longest:.1f} s after the start at most")


@pytest.mark.row(15, slow=3, full=20)
def test_two_jobs_in_one_directory(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """A second one comes later; both begin at once; the first was killed, on this machine or, so it says, on another.

    The holder is held in a step until the other one has ended.
    """
    expected = straight(tmp_path, tiny_dataset, STEPS)
    files, refused = entries(tmp_path / "straight"), "another process is training in this directory"
    kinds = [("later", "at once", "killed")[number % 3] for number in range(tries.count - 1)] + ["killed"]
    for number, kind in enumerate(kinds):
        with tries.attempt(f"{kind}, {number}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, STEPS)
            with Forked(config, 2, fault=f"step:{3 + number}:0:stop") as one:
                if kind == "at once":
                    with Forked(config, 2, fault=f"step:{3 + number}:0:stop") as two:
                        one.until(lambda: not (one.alive and two.alive), "refusal")
                        winner = one if one.alive else two
                        winner.until_stopped(0)
                        winner.signal(signal.SIGCONT)
                        assert sorted([one.wait(), two.wait()]) == [[0, 0], [2, 2]]
                    assert refused in one.printed()
                elif kind == "later":
                    one.until_stopped(0)
                    with Forked(config, 1 + number % 2) as two:
                        assert set(two.wait()) == {2}
                    holder = rf"{refused}: process {one.processes[0].pid} on \S+, just begun, last heard of \d+ s ago"
                    assert re.search(holder, one.printed())
                    one.signal(signal.SIGCONT)
                    assert one.wait() == [0, 0]
                else:
                    one.until_stopped(0)
            if kind == "killed":
                last = read_json(one.run / "status.json")
                assert last["status"] == "running"
                if number == 19:
                    write_json(one.run / "status.json", {**last, "host": "elsewhere"})
                begun = time.monotonic()
                finish(config, 2)
                waited = time.monotonic() - begun >= STALE
                assert waited == (number == 19)
            assert digest(config.run, STEPS, 2) == expected
            assert entries(one.run) == files


def entries(run: Path) -> list[str]:
    """All that is in a run directory; TensorBoard's files, one for each start, as one."""
    return sorted({re.sub(r"tfevents\..*", "tfevents", str(path.relative_to(run))) for path in run.rglob("*")})
