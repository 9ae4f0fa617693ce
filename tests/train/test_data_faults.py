"""Data that changes, is damaged or goes away: before a run, between its starts, under its feet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import programs
from tests.support.programs import script
from tests.support.repository import REPOSITORY
from tests.support.tiny import tiny_config
from tests.support.training import records, train_alone
from xlmtrain.config.prepare import BpeConfig, PrepareConfig, SplitConfig, TextConfig, VocabConfig
from xlmtrain.diagnostics import data_quality as quality_module
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.prepare.pipeline import prepare

SAMPLE = REPOSITORY / "data" / "sample"
Change = dict[str, Any]


def lines(language: str, count: int) -> list[str]:
    return (SAMPLE / f"train.{language}").read_text(encoding="utf-8").splitlines()[:count]


def prepared(directory: Path, count: int = 300, **settings: Any) -> Path:
    """The first lines of the sample corpus as data to train on."""
    directory.mkdir()
    for language in ("de", "en"):
        content = "".join(f"{line}\n" for line in lines(language, count))
        (directory / f"x.{language}").write_text(content, encoding="utf-8")
    train = SplitConfig({language: [f"{directory}/x.{language}"] for language in ("de", "en")})
    train.pairs = {"de-en": [f"{directory}/x.{{lang}}"]}
    prepare(PrepareConfig(str(directory / "data"), train, **{"bpe": BpeConfig(merges=300), **settings}))
    return directory / "data"


# --- Another data set under a run


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after two steps."""
    directory = tmp_path_factory.mktemp("started")
    train_alone(
        tiny_config(directory / "run", prepared(directory / "first"), {"model.max_positions": 64}), stop_after=2
    )
    return directory / "run"


@pytest.mark.parametrize(
    "change",
    [
        {"count": 301},
        {"bpe": BpeConfig(merges=301)},
        {"vocab": VocabConfig(max_size=100)},
        {"text": TextConfig(lowercase=True)},
        {"text": TextConfig(max_tokens=12)},
    ],
    ids=["text", "codes", "vocabulary", "lower case", "length"],
)
def test_other_text_or_tokens_under_a_run_are_refused(started: Path, tmp_path: Path, change: Change) -> None:
    run = tmp_path / "run"
    shutil.copytree(started, run)
    data = prepared(tmp_path / "second", **change)
    with pytest.raises(ConfigError, match=r"the data: fingerprint [0-9a-f]{12} -> [0-9a-f]{12}"):
        train_alone(tiny_config(run, data, {"model.max_positions": 64}))


def test_the_same_text_prepared_again_is_the_same_data(started: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(started, run)
    train_alone(tiny_config(run, prepared(tmp_path / "again"), {"model.max_positions": 64}), stop_after=1)
    assert records(run)[-1]["step"] == 3


# --- Damage


@pytest.mark.parametrize("file", ["train.de.ids", "train.de-en.en.offsets", "valid.en.ids"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_flipped_bit_is_found_before_the_first_step(
    own_dataset: Path, tmp_path: Path, file: str, begun: bool
) -> None:
    config = tiny_config(tmp_path / "run", own_dataset)
    if begun:
        train_alone(config, stop_after=1)
    content = bytearray((own_dataset / file).read_bytes())
    content[len(content) // 2] ^= 1
    (own_dataset / file).write_bytes(content)
    with pytest.raises(DataError, match=rf"{file}: damaged"):
        train_alone(config)
    if begun:
        assert len(records(tmp_path / "run")) == 2
    else:
        assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_absurd_vocabulary_is_refused_before_there_is_a_model(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_module, "LARGEST_VOCAB", 53)
    monkeypatch.setattr("xlmtrain.commands.train.build_model", lambda *_: pytest.fail("a model was made"))
    with pytest.raises(DataError, match="the data has a vocabulary of 54"):
        train_alone(tiny_config(tmp_path / "run", tiny_dataset))
    assert not (tmp_path / "run").exists()


def test_warnings_are_in_the_log_before_the_first_step(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", vocab=VocabConfig(max_size=40))
    train_alone(tiny_config(tmp_path / "run", data, {"model.max_positions": 64}), stop_after=1)
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    warning = log.index("WARNING: train.de: ")
    assert "% of the subwords are not in the vocabulary" in log[warning:].splitlines()[0]
    assert warning < log.index("preempted at step 1")


# --- Files that go away while they are read

STEPS = 400
SETTINGS = [
    *("model.dim=16", "model.layers=1", "model.heads=2", "model.max_positions=32"),
    *("data.mlm={de: 1, en: 1}", "data.tlm={de-en: 1}", "data.sequence_length=16", "data.sub_batch_tokens=64"),
    *("data.max_sentence_length=10", "optim.warmup_steps=5", f"train.steps={STEPS}", "train.batch_tokens=256"),
    *("train.log_every=1", "train.save_every=10", "evaluate.every=0", "train.device=cpu"),
]


def start(run: Path, data: Path) -> subprocess.Popen[str]:
    return programs.start(script("train"), f"run={run}", f"data.path={data}", *SETTINGS, stderr=subprocess.STDOUT)


def step(run: Path) -> int:
    try:
        return records(run)[-1]["step"]
    except (OSError, IndexError, json.JSONDecodeError):
        return -1


def under_way(process: subprocess.Popen[str], run: Path) -> None:
    """Wait until some steps are done."""
    deadline = time.monotonic() + 60
    while step(run) < 15:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def unlink(data: Path) -> None:
    for file in data.glob("train.*"):
        file.unlink()


def cut(data: Path) -> None:
    for file in data.glob("train.*.ids"):
        os.truncate(file, 0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> list[dict[str, Any]]:
    """The figures of the run that nothing happened to."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    process = start(run, tiny_dataset)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return records(run)


@pytest.mark.slow
@pytest.mark.parametrize("happens", [unlink, cut])
def test_a_shard_that_goes_away_costs_nothing(
    happens: Callable[[Path], None], undisturbed: list[dict[str, Any]], own_dataset: Path, tmp_path: Path
) -> None:
    """A file without a name stays where it is, and the run does not notice. One that is cut, or that the storage cannot
    read, ends the run after a checkpoint."""
    run = tmp_path / "run"
    good = tmp_path / "good"
    shutil.copytree(own_dataset, good)
    process = start(run, own_dataset)
    under_way(process, run)
    happens(own_dataset)
    said = process.communicate()[0]
    if happens is unlink:
        assert process.returncode == 0, said
        assert records(run) == undisturbed
        return
    assert process.returncode == 3, said
    assert "ids: cannot be read: it ends before byte" in said
    assert "Traceback" not in said
    reached = step(run)
    assert reached < STEPS
    refused = start(run, own_dataset)
    assert "train.de.ids: 0 bytes, dataset.json says" in refused.communicate()[0]
    assert refused.returncode == 3
    shutil.rmtree(own_dataset)
    shutil.copytree(good, own_dataset)
    again = start(run, own_dataset)
    said = again.communicate()[0]
    assert again.returncode == 0, said
    assert int(said.partition("checkpoints/step-")[2][:8]) == reached
    assert records(run) == undisturbed
