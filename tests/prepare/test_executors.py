"""Where tasks are done: processes of this machine, Ray, Slurm. A lost worker costs its shard only."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.preparation import TOKENIZERS, executor_settings
from tests.support.repository import REPOSITORY
from xlmtrain.config.prepare import Executor, PrepareConfig, SplitConfig
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare import executors
from xlmtrain.prepare.artifacts import ArtifactStore, BuildTask, InterruptedWork
from xlmtrain.prepare.executors import run_local, run_on_ray, run_on_slurm, shares_of
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.raw_files import RawText
from xlmtrain.prepare.scheduler import run_tasks
from xlmtrain.prepare.shard_raw import shard_task
from xlmtrain.prepare.task_runner import run_share


@pytest.fixture
def tasks(tmp_path: Path) -> list[BuildTask]:
    """Eight files to cut."""
    config, found = PrepareConfig("out", SplitConfig(mono={"de": ["x"]})), []
    for number in range(8):
        path = tmp_path / f"{number}.de"
        path.write_text(f"{number}\n")
        found.append(shard_task(RawText("train", ("de",), (path,)), config))
    return found


@pytest.fixture
def work(tmp_path: Path) -> ArtifactStore:
    (tmp_path / "work").mkdir()
    return ArtifactStore(tmp_path / "work")


@pytest.fixture(autouse=True)
def _processes_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "PARALLEL_BYTES", 0)


def break_one(tasks: Sequence[BuildTask]) -> None:
    """Not UTF-8 any more."""
    Path(tasks[5].arguments["files"][0][0]).write_bytes(b"\xff\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_do_all_tasks(work: ArtifactStore, tasks: list[BuildTask], workers: int) -> None:
    assert set(run_local(work.directory, tasks, workers)) == {task.key for task in tasks}
    assert all(work.exists(task) for task in tasks)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("workers", "mixed"), [(1, 1), (2, 0), (3, 1), (20, 0)])
def test_workers_share_text_by_its_language(workers: int, mixed: int) -> None:
    """All tasks are in one share; of three workers one has two languages."""
    sizes = [5, 10, 1, 8, 8, 0, 4]
    tasks = [
        BuildTask("tokenize", {"languages": [("de", "en")[number % 2]], "number": number}, size)
        for number, size in enumerate(sizes)
    ]
    shares = shares_of(tasks, workers)
    assert sorted(task.arguments["number"] for share in shares for task in share) == list(range(len(tasks)))
    assert sum(len({task.arguments["languages"][0] for task in share}) > 1 for share in shares) == mixed
    assert len(shares) == workers
    if workers < 4:
        assert max(sum(task.size for task in share) for share in shares) <= 36 / workers + 4


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_found_by_a_worker_arrives_as_it_is(
    work: ArtifactStore, tasks: list[BuildTask], workers: int
) -> None:
    break_one(tasks)
    with pytest.raises(DataError, match=r"5\.de:1: not UTF-8"):
        list(run_local(work.directory, tasks, workers))
    assert multiprocessing.active_children() == []


def test_an_interruption_ends_the_workers(work: ArtifactStore, tasks: list[BuildTask]) -> None:
    running = run_local(work.directory, tasks, 2)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_a_killed_worker_costs_its_task_only(work: ArtifactStore, tasks: list[BuildTask]) -> None:
    killed = []

    def run(directory: Path, left: Sequence[BuildTask]) -> Iterator[str]:
        for key in run_local(directory, left, 2):
            yield key
            if not killed:
                killed.append(multiprocessing.active_children()[0].pid)
                os.kill(killed[0], signal.SIGKILL)

    done = list(run_tasks(run, work, tasks))
    assert sorted(task.key for task in done) == sorted(task.key for task in tasks)
    assert killed


def test_if_nothing_more_gets_done_that_is_the_end(work: ArtifactStore, tasks: list[BuildTask]) -> None:
    rounds = []

    def run(directory: Path, left: Sequence[BuildTask]) -> Iterator[str]:
        rounds.append(len(left))
        yield from run_local(directory, left[:3] if len(left) > 3 else [], 1)

    with pytest.raises(InterruptedWork, match="stage shard died without finishing a task"):
        list(run_tasks(run, work, tasks))
    assert rounds == [8, 5, 2]


def test_what_is_done_without_a_word_counts_as_well(work: ArtifactStore, tasks: list[BuildTask]) -> None:
    def run(directory: Path, left: Sequence[BuildTask]) -> Iterator[str]:
        list(run_local(directory, left, 1))
        yield from ()

    assert list(run_tasks(run, work, tasks)) == tasks


# --- Slurm


FAKE_SBATCH = """#!{python}
import json, os, subprocess, sys
from pathlib import Path
here = Path(__file__).parent
options = dict(a.removeprefix("--").partition("=")[::2] for a in sys.argv[1:])
with (here / "jobs").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
script = sys.stdin.read()
first, last = map(int, options["array"].split("-"))
lost = here / "lose-one"
code = 0
for task in range(first, last + 1):
    if lost.exists() and task == last:
        lost.unlink()
        continue
    log = options["output"].replace("%A", "7").replace("%a", str(task))
    with open(log, "w") as file:
        done = subprocess.run(["sh"], input=script, text=True, stdout=file, stderr=file,
                              env={{**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}})
    code = max(code, done.returncode)
print("Submitted batch job 7")
sys.exit(code)
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH with an sbatch that does the array tasks one after the other, and notes its arguments."""
    directory = tmp_path / "bin with a blank"
    directory.mkdir()
    for name, content in (("sbatch", FAKE_SBATCH.format(python=sys.executable)), ("scancel", "#!/bin/sh\n")):
        (directory / name).write_text(content)
        (directory / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(executors, "POLL_SECONDS", 0.05)
    return directory


def jobs(cluster: Path) -> list[list[str]]:
    return [json.loads(line) for line in (cluster / "jobs").read_text().splitlines()]


def test_slurm_does_shares_of_the_tasks(work: ArtifactStore, tasks: list[BuildTask], cluster: Path) -> None:
    done = list(run_on_slurm(work.directory, tasks, 2, ["--partition=cpu", "--comment=a b"]))
    assert sorted(done) == sorted(task.key for task in tasks)
    (job,) = jobs(cluster)
    assert {"--wait", "--array=0-1", "--partition=cpu", "--comment=a b"} < set(job)
    assert len(list((work.directory / "logs").glob("shard-7-*.txt"))) == 2


def test_a_lost_array_task_is_submitted_again(work: ArtifactStore, tasks: list[BuildTask], cluster: Path) -> None:
    (cluster / "lose-one").touch()
    done = list(run_tasks(lambda d, left: run_on_slurm(d, left, 3, []), work, tasks))
    assert len(done) == 8
    assert [option for job in jobs(cluster) for option in job if option.startswith("--array")] == [
        "--array=0-2",
        "--array=0-1",
    ]


def test_the_error_of_an_array_task_is_reported(work: ArtifactStore, tasks: list[BuildTask], cluster: Path) -> None:
    break_one(tasks)
    with pytest.raises(InterruptedWork, match=r"5\.de:1: not UTF-8.*\(.*logs.*shard-7-\d\.txt\)"):
        list(run_tasks(lambda d, left: run_on_slurm(d, left, 2, []), work, tasks))
    assert sum(work.exists(task) for task in tasks) == 7


def test_without_slurm_there_is_an_error(
    work: ArtifactStore, tasks: list[BuildTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(work.directory))
    with pytest.raises(ConfigError, match="needs Slurm's sbatch"):
        list(run_on_slurm(work.directory, tasks, 1, []))


def test_every_share_is_done_by_one(work: ArtifactStore, tasks: list[BuildTask]) -> None:
    file = work.directory / "shard.tasks.json"
    file.write_text(json.dumps([[task.stage, task.arguments] for task in tasks]))
    shares = [list(run_share(file, share, 3)) for share in range(3)]
    assert sorted(key for share in shares for key in share) == sorted(task.key for task in tasks)


def same_files(one: Path, other: Path) -> None:
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_slurm_prepares_the_same_bytes(tmp_path: Path, cluster: Path, tokenizer: str) -> None:
    prepare(executor_settings(tmp_path / "here", Executor.local, tokenizer))
    prepare(executor_settings(tmp_path / "there", Executor.slurm, tokenizer))
    same_files(tmp_path / "here", tmp_path / "there")
    stages = [option for job in jobs(cluster) for option in job if option.startswith("--output")]
    learned = ["words"] if tokenizer == "codes" else []
    for stage, option in zip(["shard", "tokenize", "select", *learned, "encode", "assemble"], stages, strict=True):
        assert f"/logs/{stage}-" in option


# --- Ray


def test_preparation_imports_ray_only_to_use_it() -> None:
    """Where it is installed, importing it takes half a second."""
    program = "import sys, xlmtrain.commands.prepare; print('ray' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_missing_ray_says_how_to_install_it(
    work: ArtifactStore, tasks: list[BuildTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="pip install ray"):
        list(run_on_ray(work.directory, tasks, 1))


@pytest.mark.parametrize("content", [None, b"{", b"[1]", b"\xff"])
def test_a_share_of_no_list_of_tasks_is_one_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "nope").write_bytes(content)
    with pytest.raises(ConfigError, match=r"tasks=.*nope: not a list of tasks .*; give the .*tasks\.json"):
        list(run_share(tmp_path / "nope", 0, 1))
