"""tools/bench.py at a tiny size: everybody does the same work, and what is written can be read."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contest.heat import Plan, Runner, run_heat
from contest.shapes import SHAPES, settings, write_text
from contest.turns import End, Order, Turns
from contest.worker import CONTENDERS

from tests.support.repository import REPOSITORY
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.objective import LanguageModel

BENCH = [sys.executable, str(REPOSITORY / "tools" / "bench.py"), "shape=tiny", "rounds=3"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
CPU = torch.device("cpu")
STEPS = 6


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("contest") / "text", SHAPES["tiny"].vocab_size)


def losses(contender: str, text: Path) -> tuple[list[float], list[float]]:
    """Losses per target of the steps, and targets of the turns, without dropout."""
    config = settings(SHAPES["tiny"], text, CONTENDERS[contender].precision)
    config.model.dropout = config.model.attention_dropout = 0.0
    dataset = Dataset(text)
    loader = Loader(config, dataset)
    torch.manual_seed(0)
    weights = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
    module = importlib.import_module(f"contest.{CONTENDERS[contender].loop.replace('-', '_')}")
    loop = module.Loop(config, weights, CPU)
    mine, theirs = multiprocessing.Pipe()
    for message in (Order(0, 2), Order(1, STEPS - 3), End(0)):
        mine.send(message)
    loop.train(Turns(theirs, loader.steps(0, 10**9, loader.sampler.initial_state()), CPU))
    turns = [mine.recv() for _ in range(2)]
    for turn in turns:
        assert turn.forward + turn.backward + turn.optimizer + turn.other == pytest.approx(turn.cost)
        assert min(turn.forward, turn.backward, turn.optimizer, turn.other) > 0
    return [loss for turn in turns for loss in turn.losses], [turn.targets for turn in turns]


@pytest.mark.slow
@pytest.mark.parametrize("contender", ["hf-fp32", "hf-trainer-fp32", "ancestor-fp32", "hf-trainer-bf16"])
def test_all_learn_the_same_from_the_same_batches(contender: str, text: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    expected, targets = losses("ours-fp32", text)
    found = losses(contender, text)
    assert found[0] == pytest.approx(expected, abs=1e-4 if contender.endswith("fp32") else 2e-2)
    assert found[1] == targets
    assert len(expected) == STEPS - 1  # one was to lead


@pytest.mark.slow
def test_who_fails_is_reported_and_the_others_go_on(text: Path) -> None:
    good, bad = run_heat([("ours-fp32", "tiny"), ("ours-fp32", "nowhere")], text, CPU, Plan(3, 2, watched=1, saves=2))
    assert good.failure is None
    assert [len(turn.losses) for turn in good.turns] == [2, 2, 2]
    assert good.told["checkpoint"]["share"] > 0
    assert good.told["syncs"] == {"profiled": None, "warned": None}
    assert bad.failure == "KeyError: 'nowhere'"
    assert bad.turns == []


@pytest.mark.slow
def test_a_killed_process_is_a_failure(text: Path) -> None:
    runner = Runner("ours-fp32", "tiny", text, CPU)
    runner.process.kill()
    assert runner.ask("introduce yourself") is None
    assert runner.failure == "its process ended with exit code -9"


@pytest.mark.slow
def test_contenders_do_the_same_work(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    output = tmp_path / "speed.jsonl"
    subprocess.run([*BENCH, f"output={output}"], env=ENVIRONMENT, check=True, capture_output=True)
    results = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [result["contender"] for result in results] == [
        "ours-fp32",
        "ours-bf16",
        "hf-fp32",
        "hf-bf16",
        "hf-trainer-fp32",
        "hf-trainer-bf16",
        "ancestor-fp32",
    ]
    assert len({result["parameters"] for result in results}) == 1
    first = [result["first_loss"] for result in results]
    assert max(first) - min(first) < 1e-5
    for result in results:
        shares = result["shares"]
        parts = sum(shares[part] for part in ("forward", "backward", "optimizer", "other"))
        assert parts == pytest.approx(1, abs=0.05)
        assert 0 < result["ratio_least"] <= result["ratio"] <= result["ratio_most"]
        assert result["last_loss"] == pytest.approx(first[0], abs=3)
        assert result["peak_mb"] > result["imports_mb"] > 50
        assert (result["checkpoint"] is not None) == result["contender"].startswith("ours")
    assert [result["ratio"] for result in results if result["contender"] == "hf-fp32"] == [1.0]


@pytest.mark.slow
def test_who_is_not_there_is_refused() -> None:
    done = subprocess.run([*BENCH, "contender=megatron"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "megatron" in done.stderr
    assert "hf-trainer-bf16" in done.stderr
