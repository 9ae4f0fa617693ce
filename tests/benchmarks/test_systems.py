"""The systems under test do the same work, and the program compares all of them."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import pytest

from benchmarks import checkpoint_cost, speed
from benchmarks.shuffled_pairs import shuffled_steps
from benchmarks.worker import BatchFeed, RunRequest, RunResult, SystemInfo, make_system, system_info, training_steps
from benchmarks.workloads import SUITES, SYSTEMS, Workload, settings, write_synthetic_text
from tests.support import programs
from tests.support.tiny import CPU
from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch, EncoderInput
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.text.vocab import PAD

TINY = replace(SUITES["tiny"].workload, rows=2)
ALL = ("ours-fp32", "xlm-fp32", "hf-loop-fp32", "hf-trainer-fp32", "hf-trainer-bf16")


def train(name: str, data: Path, workload: Workload = TINY) -> tuple[SystemInfo, list[RunResult]]:
    """Train a system in this process without dropout: 2 steps, then 3 of which the first does not count."""
    system, loader = make_system(name, workload, data, CPU, dropout=0.0)
    info = system_info(system, loader, CPU)
    mine, theirs = multiprocessing.Pipe()
    for message in (RunRequest(0, 2), RunRequest(1, 2), None):
        mine.send(message)
    system.train(BatchFeed(theirs, training_steps(name, workload, data, loader), CPU))
    return info, [mine.recv() for _ in range(2)]


@pytest.mark.parametrize("names", [ALL[:2], pytest.param(ALL[2:], marks=pytest.mark.slow)])
def test_all_count_and_learn_the_same(names: tuple[str, ...], tmp_path: Path) -> None:
    """Equal tokens, targets and losses from equal batches; transformers' systems are among the slow ones."""
    if "ours-fp32" not in names:
        pytest.importorskip("accelerate")
    data = write_synthetic_text(tmp_path / "text", TINY.vocab_size, 500)
    info, results = train("ours-fp32", data)
    assert [result.tokens for result in results] == [2 * 32, 2 * 32]
    for name in names:
        other_info, others = train(name, data)
        exact = SYSTEMS[name].precision is Precision.fp32
        assert other_info.first_loss == pytest.approx(info.first_loss, abs=1e-5)
        assert replace(other_info, first_loss=0) == replace(info, first_loss=0)
        for ours, theirs in zip(results, others, strict=True):
            assert (theirs.tokens, theirs.targets) == (ours.tokens, ours.targets)
            assert theirs.losses == pytest.approx(ours.losses, abs=1e-4 if exact else 2e-2)
            assert theirs.seconds > 0
            assert theirs.peak_mb > 50


@pytest.mark.slow
def test_modernbert_counts_and_learns_the_same(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    workload = SUITES["modern-tiny"].workload
    data = write_synthetic_text(tmp_path / "text", workload.vocab_size, 500)
    (info, ours), (other_info, theirs) = (train(name, data, workload) for name in ("ours-fp32", "hf-trainer-fp32"))
    assert other_info.first_loss == pytest.approx(info.first_loss, abs=1e-5)
    assert replace(other_info, first_loss=0) == replace(info, first_loss=0)
    for one, other in zip(ours, theirs, strict=True):
        assert other.losses == pytest.approx(one.losses, abs=1e-4)


@pytest.mark.parametrize("objective", ["mt", "bt"])
def test_translation_counts_and_learns_the_same(objective: str, tmp_path: Path) -> None:
    """torch's own layers, given our weights, compute our losses, and go on computing them as both are trained.

    In back-translation both must also translate each batch equally.
    """
    workload = SUITES[f"{objective}-tiny"].workload
    data = write_synthetic_text(tmp_path / "text", workload.vocab_size, 500, pairs=objective == "mt")
    (info, ours), (other_info, plain) = (train(name, data, workload) for name in ("ours-fp32", "plain-mt-fp32"))
    assert other_info.first_loss == pytest.approx(info.first_loss, abs=1e-5)
    assert replace(other_info, first_loss=0) == replace(info, first_loss=0)
    for mine, theirs in zip(ours, plain, strict=True):
        assert (theirs.tokens, theirs.targets) == (mine.tokens, mine.targets)
        assert theirs.losses == pytest.approx(mine.losses, abs=1e-4)


def test_shuffled_pairs_are_padded_to_the_longest(tmp_path: Path) -> None:
    """Sources stand beside their translations, in both directions; as many tokens a batch as ours on average."""
    workload = SUITES["mt-tiny"].workload
    dataset = Dataset(write_synthetic_text(tmp_path / "text", workload.vocab_size, 500, pairs=True))
    steps = shuffled_steps(settings(workload, dataset.path, Precision.fp32), dataset)
    batches = [step.batches[0] for step in islice(steps, 100)]
    german, english = dataset.pair("train", "de-en")
    pairs = {(tuple(german.sentence(i)), tuple(english.sentence(i))) for i in range(500)}
    for batch, direction in zip(batches, cycle([1, -1])):
        assert batch.source is not None
        found = zip(_sentences(batch.source), _sentences(batch))
        assert {pair[::direction] for pair in found} <= pairs
    assert sum(batch.nonpad_tokens for batch in batches) / 100 == pytest.approx(512, rel=0.1)
    assert sum(batch.padded_tokens for batch in batches) / 100 > 1.5 * 512
    _, results = train("shuffled-mt-fp32", dataset.path, workload)
    assert [result.tokens for result in results] == [
        sum(batch.nonpad_tokens for batch in batches[measured]) for measured in (slice(2), slice(3, 5))
    ]


def _sentences(side: Batch | EncoderInput) -> list[tuple[int, ...]]:
    """Return the ids of each row, from behind the first delimiter to the last one."""
    return [tuple(row[1 : (row != PAD).sum()].tolist()) for row in side.tokens]


@pytest.mark.slow
def test_the_program_compares_them_all(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    output = tmp_path / "speed.jsonl"
    words = ["suite=tiny", *(f"system={name}" for name in ALL), "rounds=3", f"output={output}"]
    done = programs.run("-m", "benchmarks.speed", *words, timeout=600)
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [line["system"] for line in lines] == list(ALL)
    assert all(f"| {name} | " in done.stdout for name in ALL)
    for line in lines:
        assert 0 < line["ratio_min"] <= line["ratio"] <= line["ratio_max"]
    assert {line["system"]: line["ratio"] for line in lines}["hf-loop-fp32"] == 1.0


@pytest.mark.parametrize("argument", ["system=megatron", "suite=marathon", "rounds=2", "device=auto"])
def test_wrong_arguments_are_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match=argument.partition("=")[0]):
        speed.main([argument])


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.jsonl").write_text("thesis", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"output=.*thesis\.jsonl: exists already"):
        speed.main([f"output={tmp_path / 'thesis.jsonl'}"])
    with pytest.raises(ConfigError, match=r"output=: empty"):
        speed.main(["output="])
    assert (tmp_path / "thesis.jsonl").read_text(encoding="utf-8") == "thesis"


def test_a_directory_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="directory: /nope is no directory that can be written to"):
        checkpoint_cost.main(["experiment=quickstart", "directory=/nope"])
