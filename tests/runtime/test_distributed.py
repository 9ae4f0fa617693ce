"""What processes tell each other, and what a process finds around itself."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.support.tiny import ALONE, CPU, run_processes
from xlmtrain.config.train import Device
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.distributed import Distributed, initialize


def talk(distributed: Distributed) -> tuple[list[float], str | None, bool]:
    total = distributed.all_reduce_sum([distributed.rank + 1.0, 2.0**60 + distributed.rank, 0.1])
    assert distributed.all_gather_text("ä" * distributed.rank) == ["", "ä", "ää"]
    distributed.assert_same({"seed": 1, "text": "the same everywhere"}, "settings")
    try:
        distributed.assert_same(
            {"seed": min(distributed.rank, 1), "lr": 0.1, **({"new": True} if distributed.rank == 2 else {})},
            "settings",
        )
    except ConfigError as error:
        return total, str(error), distributed.is_main
    return total, None, distributed.is_main


def test_processes_add_up_and_agree(tmp_path: Path) -> None:
    found = run_processes(3, talk, tmp_path)
    for total, message, _ in found:
        assert total == pytest.approx([6.0, 3 * 2.0**60 + 3, 0.3], rel=1e-15)
        assert message == (  # each of them knows
            "settings: not the same on all processes:\n"
            "  new: null on rank 0, 1; true on rank 2\n"
            "  seed: 0 on rank 0; 1 on rank 1, 2"
        )
    assert [main for *_, main in found] == [True, False, False]


def test_alone() -> None:
    assert ALONE.is_main
    assert ALONE.all_reduce_sum([1, 2.5]) == [1.0, 2.5]
    ALONE.assert_same({"seed": 1}, "settings")
    assert ALONE.all_gather_text("ä") == ["ä"]
    ALONE.close()


def test_without_torchrun_a_process_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert initialize(Device.cpu) == Distributed(0, 1, CPU)


@pytest.mark.parametrize("failed", [False, True])
def test_a_failed_process_does_not_destroy_the_group_of_gpus(monkeypatch: pytest.MonkeyPatch, failed: bool) -> None:
    """Destroying it waits for all processes; they wait for the failed one."""
    called: list[str] = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: called.append("destroy"))
    monkeypatch.setattr("torch.distributed.distributed_c10d._abort_process_group", lambda: called.append("abort"))
    with suppress(ZeroDivisionError), Distributed(0, 2, torch.device("cuda", 0)):
        if failed:
            raise ZeroDivisionError
    assert called == ["abort" if failed else "destroy"]


@pytest.mark.parametrize("found", [0, 2])
def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch, found: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    monkeypatch.setenv("LOCAL_RANK", str(found))
    message = rf"train\.device=cuda: process {found} of this machine has no GPU, {found} found; .*={max(found, 1)}, or"
    with pytest.raises(ConfigError, match=message):
        initialize(Device.cuda)
