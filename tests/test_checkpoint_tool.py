"""xlmtrain checkpoint: what is listed, found damaged, averaged and deleted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.commands import checkpoint
from xlmtrain.errors import CheckpointError, ConfigError, UserError
from xlmtrain.pretrained import load
from xlmtrain.runtime.lock import lock_directory
from xlmtrain.train.checkpoint import CheckpointManager

main = checkpoint.main
CHANGES: dict[str, Any] = {"train.keep_last": 9, "train.save_every": 5}


@pytest.fixture(scope="module")
def trained(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 5, 10, 15 and 20; the best is 20's."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train_alone(tiny_config(path, tiny_dataset, CHANGES))
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def store(run: Path) -> CheckpointManager:
    return CheckpointManager(run / "checkpoints", keep_last=1)


def damage(run: Path, step: int) -> Path:
    """Turn one bit of a checkpoint's weights over."""
    path = store(run).path(step) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


def test_list(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run, 10)
    best = store(run).best_step()
    main(["list", f"run={run}"])
    header, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header == ["step", "bytes", "valid/mlm_ppl"]
    assert [line[0] for line in lines] == ["5", "10", "15", "20"]
    assert [line[2] for line in lines] == ["intact", "damaged", "intact", "intact"]
    assert [int(line[0]) for line in lines if "best" in line] == [best]
    values = [float(line[-1]) for line in lines]
    assert min(values) == values[[5, 10, 15, 20].index(best or 0)]
    size = sum(file.stat().st_size for file in store(run).path(5).iterdir())
    assert lines[0][1] == f"{size:,}"
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as metrics:  # the last record of a step counts
        metrics.write('{"step": 5, "valid/mlm_ppl": 1.01e304}\n')
    main(["list", f"run={run}"])
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "1.0e+304"


def test_verify(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", f"run={run}"])
    assert capsys.readouterr().out.count(": intact\n") == 4
    path = damage(run, 15)
    with pytest.raises(CheckpointError) as caught:
        main(["verify", f"run={run}"])
    assert caught.value.exit_code == 4
    assert f"1 of 4 damaged:\n  {path}: its SHA-256 is not the manifest's" in str(caught.value)


@pytest.mark.parametrize(("which", "steps"), [("last=3", (10, 15, 20)), ("steps=20,5", (5, 20))])
def test_average(trained: Path, tmp_path: Path, which: str, steps: tuple[int, ...]) -> None:
    output = tmp_path / "averaged"
    main(["average", f"run={trained}", which, f"output={output}"])
    every = [load_file(store(trained).path(step) / "model.safetensors") for step in steps]
    model = load(output)
    assert model.step == 20
    for name, weight in model.model.state_dict().items():
        expected = sum(one[name].double() for one in every) / len(every)
        assert torch.equal(weight, expected.float()), name  # type: ignore[union-attr]


def test_average_of_a_damaged_checkpoint_leaves_nothing(run: Path, tmp_path: Path) -> None:
    damage(run, 15)
    with pytest.raises(CheckpointError, match=r"step-00000015/model\.safetensors: its SHA-256"):
        main(["average", f"run={run}", "last=2", f"output={tmp_path / 'averaged'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_prune(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(run).mark_best(5, "valid/mlm_ppl", 1.0)
    main(["prune", f"run={run}", "keep_last=1"])
    assert capsys.readouterr().out == "deleted: 10, 15; kept: 5, 20\n"
    assert store(run).steps() == [5, 20]
    main(["prune", f"run={run}"])  # the run's own setting keeps nine
    assert capsys.readouterr().out == "deleted: none; kept: 5, 20\n"


def test_prune_where_nothing_can_be_written(run: Path) -> None:
    (run / ".lock").unlink(missing_ok=True)
    (run / ".lock").mkdir()  # refused for root, too
    with pytest.raises(ConfigError, match=r"run=.*: cannot be changed \(Is a directory\); nothing was deleted"):
        main(["prune", f"run={run}", "keep_last=1"])


def test_prune_keeps_multiples(run: Path) -> None:
    main(["prune", f"run={run}", "keep_last=1", "keep_every=10"])
    assert store(run).steps() == [10, 20]


def test_prune_keeps_away_from_a_run_in_use(run: Path) -> None:
    with lock_directory(run), pytest.raises(ConfigError, match="another process is training in this directory"):
        main(["prune", f"run={run}", "keep_last=1"])
    assert store(run).steps() == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run={run}"], "give one action of list, verify, average, prune"),
        (["delete", "run={run}"], "give one action of .*: delete"),
        (["average", "run={run}", "last=2"], "output: needed"),
        (["average", "run={run}", "output=x"], "last or steps: one of them"),
        (["average", "run={run}", "output=x", "last=5"], "last=5: there are 4 checkpoints"),
        (["average", "run={run}", "output=x", "steps=5,7"], "no checkpoint of 7; there are 5, 10, 15, 20"),
        (["prune", "run={run}", "keep_last=-1"], "keep_last=-1: at least 1 is kept"),
        (["list", "run=nowhere"], "run=nowhere: no checkpoint there"),
    ],
)
def test_refusals(trained: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([argument.format(run=trained) for argument in arguments])
