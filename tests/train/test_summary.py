"""The first lines of a run say what it has and what it leaves idle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import tiny_config
from tests.support.training import train_alone


@pytest.mark.parametrize(("cores", "processes"), [(1, None), (2, 2), (3, 2), (64, 4)])
def test_cores_that_are_idle_are_named(
    cores: int, processes: int | None, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has 4 sub-batches, so as many processes at most."""
    monkeypatch.setattr("xlmtrain.train.summary.usable_cores", lambda: cores)
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, {"train.steps": 1, "evaluate.every": 0}))
    log = (tmp_path / "run/log.txt").read_text(encoding="utf-8")
    advice = [line for line in log.splitlines() if "torchrun" in line]
    assert len(advice) == (processes is not None)
    assert all(f"1 process on {cores} cores" in line and f"--nproc-per-node={processes}" in line for line in advice)
