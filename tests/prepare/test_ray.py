"""Preparation on a real Ray cluster: a head and two machines of one worker each, all of them processes of this one."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.preparation import TOKENIZERS, executor_settings
from tests.support.repository import REPOSITORY
from xlmtrain.config.prepare import Executor, PrepareConfig, SplitConfig
from xlmtrain.errors import DataError
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask
from xlmtrain.prepare.executors import run_on_ray
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.raw_files import RawText
from xlmtrain.prepare.scheduler import run_tasks
from xlmtrain.prepare.shard_raw import shard_task

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is an extra")
pytestmark = pytest.mark.slow
PATIENCE = 60.0
"""Seconds."""


@dataclass
class RayCluster:
    """``mark``: in the environment of each of its processes."""

    mark: str

    def processes(self) -> list[int]:
        """Those that are alive."""
        return [pid for pid in all_processes() if self.mark.encode() in read(pid, "environ") and pid != os.getpid()]


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def read(pid: int, file: str) -> bytes:
    """What /proc says of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def wait_for(condition: Callable[[], Any]) -> Any:
    """What the condition gives once that is something."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return result


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """The cluster that RAY_ADDRESS names. When it is ended, none of its processes is left."""
    found = RayCluster(uuid.uuid4().hex)
    temporary = tempfile.mkdtemp(prefix="ray")  # Ray's sockets need a short path
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "PYTHONPATH": str(REPOSITORY),
            "XLMTRAIN_TEST_MARK": found.mark,
            "RAY_TMPDIR": temporary,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",  # a token would have to be there when Ray is imported
        }.items():
            patch.setenv(name, value)
        machines = cluster_utils.Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                machines.add_node(num_cpus=1)
            patch.setenv("RAY_ADDRESS", machines.address)
            patch.delenv("RAY_USAGE_STATS_ENABLED")  # the program's own process has to see to it
            yield found
        finally:
            machines.shutdown()
            end(found)
            shutil.rmtree(temporary, ignore_errors=True)
    assert not found.processes(), "Ray left processes behind"


def end(cluster: RayCluster) -> None:
    """Ask, then kill."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in cluster.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE / 4
        while cluster.processes() and time.monotonic() < deadline:
            time.sleep(0.05)


@pytest.fixture
def work(tmp_path: Path) -> ArtifactStore:
    (tmp_path / "work").mkdir()
    return ArtifactStore(tmp_path / "work")


@pytest.fixture
def tasks(tmp_path: Path) -> list[BuildTask]:
    """Six files to shard. The third is long enough for its reader to be found while it reads."""
    files = [tmp_path / f"{number}.de" for number in range(6)]
    for file in files:
        file.write_text(f"{file.stem}\n")
    files[2].write_text("Ein Satz.\n" * 5_000_000)
    config = PrepareConfig("out", SplitConfig(mono={"de": ["x"]}))
    return [shard_task(RawText("train", ("de",), (file,)), config) for file in files]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_two_workers_prepare_the_same_bytes(cluster: RayCluster, tmp_path: Path, tokenizer: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    prepare(executor_settings(here, Executor.local, tokenizer))
    prepare(executor_settings(there, Executor.ray, tokenizer))
    assert {path.name: path.read_bytes() for path in here.iterdir()} == {
        path.name: path.read_bytes() for path in there.iterdir()
    }
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.usefixtures("cluster")
def test_a_mistake_in_the_text_arrives_as_it_is(work: ArtifactStore, tasks: list[BuildTask]) -> None:
    broken = Path(tasks[1].arguments["files"][0][0])
    broken.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"1\.de:1: not UTF-8"):
        list(run_on_ray(work.directory, [tasks[1]], 2))


@pytest.mark.parametrize("lost", ["worker", "machine"])  # the machine last: it is gone afterwards
def test_what_is_lost_costs_its_shard_only(
    cluster: RayCluster, work: ArtifactStore, tasks: list[BuildTask], lost: str
) -> None:
    long, others = Path(tasks[2].arguments["files"][0][0]), [*tasks[:2], *tasks[3:]]
    finished: dict[Path, int] = {}
    killed: list[int] = []

    def reader() -> int | None:
        return next((pid for pid in cluster.processes() if opens(pid, long)), None)

    def kill() -> None:
        """Stop the reader of the long file until all others are done; then shorten the file, and kill it."""
        pid = wait_for(reader)
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: all(work.exists(task) for task in others))
        finished.update({path: path.stat().st_mtime_ns for path in (work.directory / "shard").glob("[0-9a-f]*")})
        long.write_text("2\n")
        for victim in [pid] if lost == "worker" else machine_of(pid):
            os.kill(victim, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    done = list(run_tasks(lambda directory, left: run_on_ray(directory, left, 2), work, tasks))
    killer.join()
    assert killed
    assert not read(killed[0], "cmdline")
    assert sorted(task.key for task in done) == sorted(task.key for task in tasks)
    assert len(finished) == len(others)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert work.result("shard", tasks[2].key)["lines"] == 1


def opens(pid: int, file: Path) -> bool:
    """Whether a process has the file open."""
    with suppress(OSError):
        return any(os.readlink(link) == str(file) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def machine_of(worker: int) -> list[int]:
    """The Ray daemon that a worker belongs to, and all that it started."""
    daemon = parent(worker)
    assert b"raylet" in read(daemon, "cmdline")
    return [daemon, *(pid for pid in all_processes() if parent(pid) == daemon)]


def parent(pid: int) -> int:
    """0 if the process has ended."""
    fields = read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0
