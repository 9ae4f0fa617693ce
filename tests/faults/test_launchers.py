"""What ``tools/launch/`` asks of torchrun, and a job under SLURM, as far as one machine has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import fake_slurm
from tests.support.hosts import HEAD, Hosts, namespaces
from tests.support.repository import REPOSITORY
from tests.support.starts import PATIENCE, digest, last_step, settings, straight
from tests.support.torchrun import overrides

LAUNCH = REPOSITORY / "tools/launch"
STEPS = 40


def launch(directory: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``host.sh`` with a torchrun that prints its arguments and the interface it is to talk over."""
    torchrun = directory / "torchrun"
    torchrun.write_text('#!/bin/sh\necho "$GLOO_SOCKET_IFNAME $NCCL_SOCKET_IFNAME" "$@"\n', encoding="utf-8")
    torchrun.chmod(0o755)
    environment = {"PATH": f"{directory}:{os.environ['PATH']}", **variables}
    command = [str(LAUNCH / "host.sh"), *words]
    with (directory / "out").open("w+") as out, (directory / "err").open("w+") as err:  # pipes would wait for the watch
        done = subprocess.run(command, env=environment, stdout=out, stderr=err, timeout=60)
    texts = [(directory / name).read_text(encoding="utf-8") for name in ("out", "err")]
    return subprocess.CompletedProcess(command, done.returncode, *texts)


def test_what_a_host_starts(tmp_path: Path) -> None:
    done = launch(tmp_path, "experiment=a", "run=b c", HEAD="127.0.0.1", HOSTS="1:2", INTERFACE="lo", RUN_ID="7")
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip()
    assert said.startswith("lo lo --nnodes=1:2 --nproc-per-node=gpu --local-addr=127.0.0.1 --rdzv-backend=c10d ")
    assert "--rdzv-endpoint=127.0.0.1:29400 --rdzv-id=7 --rdzv-conf=is_host=true," in said
    assert said.endswith(" train.py experiment=a run=b c")
    other = launch(
        tmp_path, HEAD="10.77.0.9", HOSTS="2", INTERFACE="lo", PORT="4", PROCESSES="8", GRACE="9", RESTARTS="0"
    )
    assert "--nproc-per-node=8 --local-addr=127.0.0.1 " in other.stdout
    assert "--rdzv-endpoint=10.77.0.9:4 --rdzv-id=xlmtrain --rdzv-conf=is_host=false," in other.stdout
    assert "--max-restarts=0 --shutdown-timeout=9 " in other.stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HOSTS": "2"}, "HEAD=... is missing"),
        ({"HEAD": "localhost"}, "HOSTS=... is missing"),
        ({"HEAD": "no.such.host.invalid", "HOSTS": "2"}, "HEAD=no.such.host.invalid: no such host is known here"),
        ({"HEAD": "localhost", "HOSTS": "2"}, "HEAD=localhost is 127.0.0.1 here, which other hosts cannot reach"),
        ({"HEAD": "127.0.1.1", "HOSTS": "2"}, "HEAD=127.0.1.1 is 127.0.1.1 here, which other hosts cannot reach"),
        ({"HEAD": "localhost", "HOSTS": "2", "INTERFACE": "none0"}, "INTERFACE=none0: no interface with an address"),
    ],
)
def test_what_cannot_work_is_said(tmp_path: Path, variables: dict[str, str], message: str) -> None:
    done = launch(tmp_path, **variables)
    assert done.returncode == 2
    assert f"error: {message}" in done.stderr
    assert done.stdout == ""


def test_hosts_leave_nothing_behind() -> None:
    """Not after a failure, and what a killed test left goes when the next one begins."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = f"xlmtrain-{dead.pid}-first"
    try:
        subprocess.run(["ip", "netns", "add", left], check=True, capture_output=True)
        hosts = Hosts()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    assert left not in namespaces()

    def ours() -> int:
        return sum(f"-{os.getpid()}-" in name for name in namespaces())

    with suppress(ZeroDivisionError), hosts:
        assert ours() == 2
        raise ZeroDivisionError
    assert ours() == 0


@pytest.mark.slow
def test_a_job_under_slurm(tiny_dataset: Path, tmp_path: Path) -> None:
    """Its time is up in the midst of the run: a checkpoint, queued again once, and done the second time."""
    straight(tmp_path, tiny_dataset, STEPS)
    config = settings(tmp_path / "run", tiny_dataset, STEPS)
    slurm = tmp_path / "slurm"
    try:
        hosts = Hosts()
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    with hosts, (tmp_path / "job.log").open("w") as log:
        fake_slurm.install(slurm, {HEAD: hosts.command(0), "10.77.0.2": hosts.command(1)})
        environment = {
            **os.environ,
            "PATH": f"{slurm}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PROCESSES": "1",
            "GRACE": "20",
        }
        words = [word for word in overrides(config) if not word.startswith("train.requeue=")]
        command = ["sbatch", str(LAUNCH / "slurm.sbatch"), *words]
        job = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + PATIENCE
            while last_step(config.run) < 7:
                running = job.poll() is None and time.monotonic() < end
                assert running, (tmp_path / "job.log").read_text()[-3000:]
                time.sleep(0.01)
            (slurm / "time-is-up").touch()
            assert job.wait(PATIENCE) == 0, (tmp_path / "job.log").read_text()[-3000:]
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
    calls = [json.loads(line) for line in (slurm / "scontrol.log").read_text().splitlines()]
    assert calls == [["show", "hostnames", "all"], ["requeue", "4711"], ["show", "hostnames", "all"]]
    printed = (tmp_path / "job.log").read_text()
    assert "preempted at step" in printed
    assert "job 4711 is queued again" in printed
    assert digest(config.run, STEPS, 0) == digest(tmp_path / "straight", STEPS, 0)
