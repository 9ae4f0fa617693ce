"""More than two processes: sums of gradients depend on their order there, and one of them may meet an error alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import run_processes, tiny_config
from tests.support.training import assert_same_run, train_alone, train_on
from xlmtrain.config.schema import Config
from xlmtrain.errors import UserError
from xlmtrain.runtime.distributed import Distributed

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
    assert "a run is in this directory that began otherwise:\n  seed: 0 -> 1\n" in first[2]
    assert others == [("PeerError", 2, f"rank 0 failed: ConfigError: {first[2]}")] * 3
    assert contents(tmp_path / "run") == before
