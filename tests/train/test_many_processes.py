"""More than two processes: sums of gradients depend on their order there, and one of them may meet an error alone."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from torch.distributed import distributed_c10d

from tests.support.tiny import run_processes, tiny_config
from tests.support.training import assert_same_run, train_alone, train_on
from xlmtrain.config.schema import Config
from xlmtrain.data import dataset
from xlmtrain.errors import UserError
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train import checkpoint_io

CHANGES = {"data.clm": {"de": 1.0}, "train.steps": 10, "evaluate.every": 5}


def starts(distributed: Distributed, *plan: tuple[Config, int]) -> list[str]:
    """Several starts of the program, one after the other: the settings, and after how many steps SIGTERM comes."""
    return [train_on(distributed, config, stop_after).status for config, stop_after in plan]


@pytest.mark.slow
def test_stopped_and_resumed_is_the_straight_run(tiny_dataset: Path, tmp_path: Path) -> None:
    """Bit for bit. Stopped right after the first step and in the midst of the run."""
    straight, stopped = (tiny_config(tmp_path / name, tiny_dataset, CHANGES) for name in ("straight", "stopped"))
    whole = 10**6
    plan = ((straight, whole), (stopped, 1), (stopped, 3), (stopped, whole))
    for outcomes in run_processes(4, starts, tmp_path, *plan):
        assert outcomes == ["done", "preempted", "preempted", "done"]
    assert_same_run(straight.run, stopped.run, 5)
    assert_same_run(straight.run, stopped.run, 10)


def contents(directory: Path) -> dict[Path, bytes]:
    """Every file, and what is in it."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refused(distributed: Distributed, config: Config) -> tuple[str, int, str]:
    """The error that this process ends with, and its exit code."""
    with pytest.raises(UserError) as caught:
        train_on(distributed, config)
    return type(caught.value).__name__, caught.value.exit_code, str(caught.value)


@pytest.mark.slow
def test_what_rank_0_alone_finds_wrong_ends_all(tiny_dataset: Path, tmp_path: Path) -> None:
    """Only rank 0 opens the run directory; the others must neither wait for it nor go on."""
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, CHANGES), stop_after=1)
    before = contents(tmp_path / "run")
    config = tiny_config(tmp_path / "run", tiny_dataset, {**CHANGES, "seed": 1})
    first, *others = run_processes(4, refused, tmp_path, config)
    assert first[:2] == ("ConfigError", 2)
    assert "this directory holds a run with other settings:\n  seed: 0 -> 1\n" in first[2]
    assert others == [("PeerError", 2, f"rank 0 failed: ConfigError: {first[2]}")] * 3
    assert contents(tmp_path / "run") == before


def hashed(distributed: Distributed, config: Config) -> tuple[list[str], list[str]]:
    """Of a resumed run on two processes of one host: the parts of the data, and the files of the checkpoint, hashed."""
    os.environ["LOCAL_RANK"] = str(distributed.rank)
    data: list[str] = []
    files: list[str] = []
    verify, sha256 = dataset._CheckedPart.verify, checkpoint_io.sha256_of

    def verified(part: dataset._CheckedPart) -> None:
        data.append(f"{part.numbers.path.name} {part.begin}")
        verify(part)

    def summed(path: Path) -> str:
        files.append(path.name)
        return sha256(path)

    with mock.patch.object(dataset._CheckedPart, "verify", verified):
        with mock.patch.object(checkpoint_io, "sha256_of", summed):
            assert train_on(distributed, config).status == "done"
    return data, files


def test_each_process_hashes_its_share_and_one_of_a_host_the_checkpoint(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {**CHANGES, "train.steps": 2})
    train_alone(config)
    (data, files), (others, none) = run_processes(2, hashed, tmp_path, config)
    every = [f"{path.name} 0" for path in tiny_dataset.glob("[tv]*.*.*") if path.suffix in (".ids", ".offsets")]
    assert sorted(data + others) == sorted(every)
    assert abs(len(data) - len(others)) <= 1
    assert sorted(files) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert none == []


def long_work(distributed: Distributed) -> int:
    """Work of rank 1 that takes longer than a collective may: until it has been waited for three times."""
    distributed_c10d._set_pg_timeout(timedelta(seconds=2), distributed_c10d._get_default_group())
    done, waited = threading.Event(), 0

    def report_progress() -> None:
        nonlocal waited
        waited += 1
        if waited == 3:
            done.set()

    assert distributed.run_long_on_all(lambda: distributed.rank == 0 or done.wait(60), report_progress)
    return waited


def test_no_limit_ends_long_work(tmp_path: Path) -> None:
    assert run_processes(2, long_work, tmp_path) == [3, 3]
