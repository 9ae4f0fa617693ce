"""Runs that are asked to stop: by SIGTERM to torchrun or to one rank, by SLURM, by Ctrl-C once and twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.fault_table import Tries
from tests.support.starts import Forked, digest, finish, last_step, pause, settings, straight
from tests.support.torchrun import Torchrun
from tests.support.training import checkpoint, records, status
from xlmtrain.config.train import Requeue

STEPS = 30
FAULT_POINTS = {  # fault point, and the step after which the run stands there
    "a step": ("step:7", 6),
    "the first step": ("step:1", 0),
    "an evaluation": ("evaluate:9", 10),
    "a save": ("save-write:1", 5),
    "start-up": ("open:1", 0),
}


@pytest.mark.row(4, slow=2, full=20)
def test_sigterm_to_torchrun(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """It arrives while rank 0 is held at the moment, so that the moment is not left to chance."""
    straight(tmp_path, tiny_dataset, STEPS)
    longest = 0.0
    cases = [(moment, number) for number in range(4) for moment in FAULT_POINTS]
    for moment, number in cases[: tries.count]:
        with tries.attempt(f"{moment}, {number}"):
            config = settings(tmp_path / f"{moment.replace(' ', '-')}-{number}", tiny_dataset, STEPS)
            point, stands = FAULT_POINTS[moment]
            with Torchrun(config, fault=f"{point}:0:stop") as start:
                held = start.until_stopped(0)
                start.process.send_signal(signal.SIGTERM)
                started = time.monotonic()
                pause(random.Random(number), 0.3)
                os.kill(held, signal.SIGCONT)
                start.wait()
                took = time.monotonic() - started
            assert took <= 10, f"it took {took:.1f} s"
            longest = max(longest, took)
            assert status(config.run)["status"] == "preempted"
            reached = last_step(start.run)
            assert stands <= reached <= stands + 2  # the step at hand, and at most the one after the signal
            assert reached == 0 or checkpoint(config.run, reached).is_dir()
            finish(config, 2)
            assert digest(config.run, STEPS, 0) == digest(tmp_path / "straight", STEPS, 0)
    tries.figure(f"torchrun ended {longest:.1f} s after the signal at most")


@pytest.mark.row(5, quick=1, slow=4, full=10)
def test_sigterm_to_one_rank(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    expected = straight(tmp_path, tiny_dataset, STEPS)
    rng = random.Random(5)
    for number in range(tries.count):
        with tries.attempt(f"try {number}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, STEPS)
            with Forked(config, 2) as start:
                start.until_step(rng.randint(1, STEPS - 10))
                pause(rng, 0.05)
                before = last_step(start.run)
                start.signal(signal.SIGTERM, [number % 2])
                assert start.wait() == [128 + signal.SIGTERM] * 2
            assert status(config.run)["status"] == "preempted"
            reached = last_step(start.run)
            assert reached <= before + 4  # what was under way while the signal travelled
            assert checkpoint(config.run, reached).is_dir()
            finish(config, 2)
            assert digest(config.run, STEPS, 2) == expected


def fake_scontrol(directory: Path) -> Path:
    """Put a ``scontrol`` there that notes who called it with which arguments, one a line; where it notes that."""
    program, said = directory / "scontrol", directory / "said"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "rank $RANK" "$@" >> "{said}"\n', encoding="utf-8")
    program.chmod(0o755)
    return said


@pytest.mark.row(6, slow=1, full=5)
def test_a_job_is_queued_again(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """SIGUSR1 to torchrun, which passes it on; ``scontrol`` is the one on PATH."""
    straight(tmp_path, tiny_dataset, STEPS)
    said = fake_scontrol(tmp_path)
    job = {"SLURM_JOB_ID": "4711_3", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for moment in list(FAULT_POINTS)[: tries.count]:
        with tries.attempt(moment):
            name, (point, stands) = moment.replace(" ", "-"), FAULT_POINTS[moment]
            config = settings(tmp_path / name, tiny_dataset, STEPS, train__requeue=Requeue.slurm)
            passed_on = "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1"
            with Torchrun(config, passed_on, fault=f"{point}:0:stop", **job) as start:
                held = start.until_stopped(0)
                start.process.send_signal(signal.SIGUSR1)
                os.kill(held, signal.SIGCONT)
                start.wait()
            assert said.read_text(encoding="utf-8") == "rank 0\nrequeue\n4711_3\n", start.printed()
            said.unlink()
            assert status(config.run)["status"] == "preempted"
            assert stands <= last_step(start.run) <= stands + 2
            with Torchrun(config, passed_on, **job) as start:
                assert start.wait() == 0
            assert not said.exists(), "queued again although it is done"
            assert digest(config.run, STEPS, 0) == digest(tmp_path / "straight", STEPS, 0)


NO_JOBS = ("1;touch harm", "$(touch harm)", "-1", "1 2", "")


@pytest.mark.row(6, quick=1, slow=2, full=5)
def test_what_is_no_job_is_refused(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """Before anything is done: nobody has to find out at the end of the job."""
    said = fake_scontrol(tmp_path)
    config = settings(tmp_path / "run", tiny_dataset, STEPS, train__requeue=Requeue.slurm)
    for job in NO_JOBS[: tries.count]:
        with tries.attempt(repr(job)):
            with Forked(config, 2, SLURM_JOB_ID=job, PATH=f"{tmp_path}:{os.environ['PATH']}") as start:
                assert start.wait() == [2, 2]
            assert f"error: train.requeue=slurm: SLURM_JOB_ID={job!r} is not the id of a SLURM job" in start.printed(0)
            assert not said.exists()
            assert not start.run.exists()
            assert not list(Path.cwd().glob("harm*"))
    tries.figure(f"{tries.count} that are no job's number refused")


HELD = ("step:7", "evaluate:9", "save-write:1", "step:1", "save-rename:2")


@pytest.mark.row(7, quick=2, slow=4, full=10)
def test_a_second_signal(tries: Tries, tiny_dataset: Path, tmp_path: Path) -> None:
    """A second SIGTERM, which launchers pass on, changes nothing; a second Ctrl-C ends all at once, whole."""
    expected = straight(tmp_path, tiny_dataset, STEPS)
    for number in range(tries.count):
        place, twice = HELD[number // 2], (signal.SIGINT, signal.SIGTERM)[number % 2]
        with tries.attempt(f"{place}, {twice.name}"):
            config = settings(tmp_path / f"run{number}", tiny_dataset, STEPS)
            seconds = 60 if twice == signal.SIGINT else 1
            with Forked(config, 2, fault=f"{place}:0:stop,{place}:*:sleep={seconds}") as start:
                start.until_stopped(0)
                start.signal(signal.SIGCONT)
                began, sent = time.monotonic(), 0
                while start.alive and (sent < 2 or (twice == signal.SIGINT and sent < 20)):
                    start.signal(twice)
                    sent += 1
                    time.sleep(0.25)
                codes = start.wait()
                if twice == signal.SIGINT:
                    assert time.monotonic() - began < 10, "it waited"
                    by_signal = {-signal.SIGINT, 128 + signal.SIGINT}
                    assert by_signal & set(codes)
                    assert set(codes) <= by_signal | {1}  # the other process was gone before its own signal came
                else:
                    assert codes == [128 + signal.SIGTERM] * 2
                    assert status(config.run)["status"] == "preempted"
                    assert checkpoint(config.run, last_step(start.run)).is_dir()
            finish(config, 2)
            assert digest(config.run, STEPS, 2) == expected
            assert [r["step"] for r in records(config.run) if "train/loss" in r] == list(range(1, STEPS + 1))
