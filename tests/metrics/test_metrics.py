"""Figures: their arithmetic, and where they go."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.flop_counter import FlopCounterMode

from tests.support.tiny import CPU
from xlmtrain.config.families import Family
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch, EncoderInput
from xlmtrain.metrics.flops import flops_per_token, gpu_named, peak_flops, skipped_share
from xlmtrain.metrics.loggers import Console, MetricsWriter, read_records
from xlmtrain.metrics.timer import StepTimer, duration
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import TranslationModel


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (59.6, "0:01:00"),
        (3723, "1:02:03"),
        (90061, "25:01:01"),
        (-1, "-"),
        (float("nan"), "-"),
        (float("inf"), "-"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_flops_of_a_token_by_hand() -> None:
    """Multiplications and additions of each matrix, counted one by one, forward and twice that for backward."""
    dim, layers, vocab, length, scored = 8, 3, 100, 16, 0.25
    projections = 4 * 2 * dim * dim  # q, k, v, out
    feed_forward = 2 * 2 * dim * 4 * dim
    attention = 2 * 2 * length * dim  # q k^T and the weighted sum of v
    forward = layers * (projections + feed_forward + attention) + scored * 2 * vocab * dim
    model = ModelConfig(dim=dim, layers=layers, heads=2)
    assert flops_per_token(model, vocab, length, scored) == pytest.approx(3 * forward)


@pytest.mark.parametrize(("family", "sources"), [(Family.xlm, 0), (Family.modernbert, 0), (Family.xlm, 40)])
def test_flops_are_those_of_a_step(family: Family, sources: int) -> None:
    """The matrix products that torch counts; those of attention aside, which are not of matrices."""
    rows, length, vocab, targets = 4, 24, 100, 32
    config = ModelConfig(family=family, dim=64, layers=2, heads=2, max_positions=64, dropout=0.0, attention_dropout=0.0)
    tokens, source = (torch.randint(14, vocab, (rows, count)) for count in (length, sources))
    at, positions = torch.arange(targets), torch.arange(64)
    batch = Batch("mlm", tokens, positions[:length].expand(rows, -1), 0 * tokens, None, at, at + 14)
    if sources:
        side = EncoderInput(source, positions[:sources].expand(rows, -1), 0 * source, None)
        batch = replace(batch, objective="mt", source=side)
    model = (TranslationModel if sources else LanguageModel)(config, vocab, 2)
    with FlopCounterMode(display=False) as counter:
        model(batch).backward()
    counts = counter.get_flop_counts()["Global"]
    counted = sum(counts.get(product, 0) for product in (torch.ops.aten.mm, torch.ops.aten.addmm))
    total = rows * (length + sources)
    scored, translated = targets / total, float(sources > 0)
    flops = flops_per_token(config, vocab, 0, scored, translated, skipped_share(scored, translated))
    left_out = 6 * targets * 64**2 * config.parts.head_transform
    assert counted == pytest.approx(total * flops + left_out)


def test_peak_is_that_of_the_device_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(CPU, Precision.bf16) is None
    gpu = torch.device("cuda", 0)
    for name, peak in (("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("Abacus 3000", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_flops(gpu, Precision.bf16) == peak
        assert peak_flops(gpu, Precision.fp32) is None


def test_stopwatch_counts_steps_and_not_what_is_between(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = StepTimer()

    def after(seconds: float) -> None:
        now[0] += seconds

    after(1.0)
    watch.data_ready()
    after(2.0)
    watch.step_done(tokens=10, positions=16, targets=2)
    after(50.0)  # evaluation
    watch.resume()
    after(0.5)
    watch.data_ready()
    after(2.5)
    watch.step_done(tokens=14, positions=16, targets=3)
    assert (watch.seconds, watch.waiting) == (6.0, 1.5)
    assert (watch.tokens, watch.positions, watch.targets) == (24, 32, 5)
    after(7.0)
    watch.reset()
    assert (watch.seconds, watch.waiting, watch.tokens) == (0.0, 0.0, 0.0)
    after(1.0)
    watch.data_ready()
    assert watch.seconds == 1.0


def lines(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def write(directory: Path, at: int, steps: range, value: float) -> None:
    writer = MetricsWriter(directory, at, at)
    for step in steps:
        writer.scalars(step, {"train/loss": value + step, "train/lr": 0.1})
    writer.text(steps[0], "samples/en", "a [b > c]")
    writer.close()


def test_figures_of_a_resumed_run_stand_once(tmp_path: Path) -> None:
    """Started; failed after step 5; went on from 3; failed before it saved; began anew."""
    write(tmp_path, 0, range(6), 10.0)
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 6, "train/lo')  # cut short
    write(tmp_path, 3, range(4, 9), 20.0)
    expected = [(0, 10.0), (1, 11.0), (2, 12.0), (3, 13.0), (4, 24.0), (5, 25.0), (6, 26.0), (7, 27.0), (8, 28.0)]
    assert [(line["step"], line["train/loss"]) for line in lines(tmp_path)] == expected
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == expected
    assert {"train/loss", "train/lr"} <= set(board.Tags()["scalars"])

    write(tmp_path, 0, range(2), 30.0)
    assert [(line["step"], line["train/loss"]) for line in lines(tmp_path)] == [(0, 30.0), (1, 31.0)]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(0, 30.0), (1, 31.0)]


def test_curves_of_a_run_that_is_resumed_by_an_earlier_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads files in the order of their names, which begin with the time of day."""
    now = [2e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    for start, back in enumerate((0.0, 0.0, 3600.0, 1.0)):  # the second within the same second as the first
        now[0] -= back
        write(tmp_path, 3 * start, range(3 * start + 1, 3 * start + 6), 10.0 * start)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    expected = [(step, 10.0 * min((step - 1) // 3, 3) + step) for step in range(1, 15)]
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == expected
    assert [(line["step"], line["train/loss"]) for line in lines(tmp_path)] == expected


def test_records_are_on_disk_at_once(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0, -1)
    writer.scalars(1, {"train/loss": 2.0})
    assert lines(tmp_path) == [{"step": 1, "train/loss": 2.0}]
    writer.close()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logging.getLogger("xlmtrain").propagate = True
    with caplog.at_level(logging.INFO, "xlmtrain"):
        console = Console()
        console.progress("step 1/9 | loss 3.0")
        console.message("step 5 | ppl 7")
    assert caplog.messages == ["step 1/9 | loss 3.0", "step 5 | ppl 7"]
    assert stream.getvalue() == ""


def test_a_terminal_gets_one_line_that_is_written_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    logging.getLogger("xlmtrain").propagate = True
    with caplog.at_level(logging.INFO, "xlmtrain"):
        console = Console()
        console.progress("step 1/9")
        console.progress("step 2/9")
        console.message("step 5 | ppl 7")
    assert stream.getvalue().startswith("\r\x1b[2Kstep 1/9\r\x1b[2Kstep 2/9\r")
    assert "\n" not in stream.getvalue()
    assert caplog.messages == ["step 5 | ppl 7"]  # progress is not for the log file


@pytest.mark.parametrize(
    ("columns", "shown"),
    [("80", "step 1/9 | ETA 0:08 | loss 3.0"), ("30", "step 1/9 | ETA 0:08"), ("19", "step 1/9"), ("5", "step")],
)
def test_a_narrow_terminal_gets_the_first_parts(monkeypatch: pytest.MonkeyPatch, columns: str, shown: str) -> None:
    """A line that is wrapped could not be written over."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", columns)
    Console().progress("step 1/9 | ETA 0:08 | loss 3.0")
    assert stream.getvalue() == f"\r\x1b[2K{shown}"


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("Tesla V100-PCIE-16GB", "V100 PCIe"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H20", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_gpus_are_not_taken_for_others(device: str, name: str | None) -> None:
    found = gpu_named(device)
    assert (found and found.name) == name


def test_damaged_records_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "x": 2}\nnull\n[1]\n{"x": 3}\n{"step": "one"}\n\xff\xfe\n{"step": 4}\n{"st')
    assert read_records(path) == [{"step": 1, "x": 2}, {"step": 4}]
