"""xlmtrain finetune as the program it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.programs import Call
from tests.support.toy import toy_config, toy_model
from xlmtrain.interop.run import write_run


@pytest.fixture(scope="module")
def arguments(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A pretrained model, and a task in English that is tested in both languages."""
    place = tmp_path_factory.mktemp("finetune")
    (place / "model").mkdir()
    write_run(toy_model(tiny_dataset), place / "model")
    task = toy_config(place).task
    files = [
        f"task.{split}={{{', '.join(f'{k}: {v}' for k, v in getattr(task, split).items())}}}"
        for split in ("train", "test")
    ]
    sizes = ["optim.lr=5e-3", "optim.warmup_steps=5", "train.batch_size=16", "train.dropout=0", "train.epochs=4"]
    return [f"init.pretrained={place / 'model'}", *files, *sizes]


def test_the_table_of_a_fine_tuning(call: Call, arguments: list[str], tmp_path: Path) -> None:
    """Of two seeds; the same command again prints it again, without training."""
    run = tmp_path / "run"
    printed = call("finetune", *arguments, f"run={run}", "seeds=[0,1]")
    header, english, german = printed.splitlines()
    assert header.split()[:2] == ["language", "examples"]
    assert english.split()[:2] == ["en", "60"]
    assert german.split()[:3] == ["de", "(zero-shot)", "60"]
    assert "±" in german
    assert float(german.split()[3]) > 85
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["labels"] == ["no", "yes"]
    assert [one["seed"] for one in results["seeds"]] == [0, 1]
    checkpoint = next((run / "seed-0" / "checkpoints").glob("step-*")).stat().st_mtime_ns
    assert call("finetune", *arguments, f"run={run}", "seeds=[0,1]") == printed
    assert next((run / "seed-0" / "checkpoints").glob("step-*")).stat().st_mtime_ns == checkpoint


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("task.test={fr: nowhere.tsv}", 3, "task.test.fr: nowhere.tsv is not there"),
        ("init.pretrained=nowhere", 4, "nowhere: no such file or directory"),
        ("train.epcohs=3", 2, "did you mean train.epochs?"),
        ("train.epochs=0", 2, "train.epochs: 0.0 is not above 0"),
        ("evaluate.patience=2", 2, "evaluate.patience: needs task.valid"),
        ("evaluate.metric=pearson", 2, "task.kind=classification has accuracy, f1, matthews"),
    ],
)
def test_refuses(call: Call, arguments: list[str], tmp_path: Path, change: str, code: int, message: str) -> None:
    kept = [argument for argument in arguments if argument.partition("=")[0] != change.partition("=")[0]]
    assert message in call("finetune", *kept, change, f"run={tmp_path / 'run'}", code=code)
    assert not (tmp_path / "run").exists()


def test_help_explains_every_setting(call: Call) -> None:
    printed = call("finetune", "--help")
    for setting in ("run=???", "init.pretrained=???", "train.layers=null", "evaluate.metric=null", "task.test={}"):
        assert f"  {setting}   [" in printed
