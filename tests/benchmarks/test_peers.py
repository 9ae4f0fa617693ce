"""The program that compares everything with every peer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from benchmarks import peers
from benchmarks.runner import SystemProcess, run_suite
from benchmarks.workloads import Suite
from xlmtrain.errors import DataError


def run_suite_with_a_failure(suite: Suite, data: Path, device: torch.device) -> list[SystemProcess]:
    """The last system of translation fails after its turns."""
    processes = run_suite(suite, data, device)
    if suite.workload.objective == "mt":
        processes[-1].failure = "cannot"
    return processes


@pytest.mark.slow
def test_every_peer_is_in_one_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With small models; what the rows say is measured, so it is only known that they are there."""
    training = {"tiny": ("hf-trainer", "xlm"), "modern-tiny": ("hf-trainer",), "mt-tiny": ("plain-mt",)}
    monkeypatch.setattr(peers, "TRAINING", training)
    monkeypatch.setattr(peers, "ROUNDS", 1)
    monkeypatch.setattr(peers, "has_bf16", lambda _: False)
    monkeypatch.setattr(peers, "run_suite", run_suite_with_a_failure)
    with pytest.raises(SystemExit, match=r"mt-tiny: plain-mt-fp32: cannot"):
        peers.main([])
    printed = capsys.readouterr().out
    assert "| train mt" not in printed
    lines = [line for line in printed.splitlines() if line.startswith("| ")][2:]
    found = {(row[0].partition(",")[0], row[3]) for row in (line.strip("| ").split(" | ") for line in lines)}
    assert found >= {
        ("normalize", "sacremoses"),
        ("tokens to ids", "fastBPE, dictionary"),
        ("raw text to ids", "sacremoses, fastBPE, dictionary"),
        ("raw text to ids", "encode_batch_fast"),
        ("train mlm", "hf-trainer"),
        ("train mlm", "xlm"),
        ("train modernbert", "hf-trainer"),
        ("embed", "feature-extraction, batches of 1"),
        ("fill_mask", "fill-mask, batches of 32"),
        ("score", "a loop, batches of 32"),
        ("translate batches", "MarianMTModel.generate"),
        ("translate lines", "MarianMTModel.generate, batches of 32"),
    }


def test_text_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(DataError, match="nope"):
        peers.main(["en=nope.en"])
