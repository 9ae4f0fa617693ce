"""Figures and their table, and the switch to PyTorch's own kernels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from benchmarks.convergence import reference_kernels
from benchmarks.metrics import summarize, table
from benchmarks.worker import RunResult
from benchmarks.workloads import Workload
from xlmtrain.metrics.flops import flops_per_token
from xlmtrain.model.kernels.dropout import Dropout

WORKLOAD = Workload(dim=64, layers=2, heads=2, vocab_size=1000, rows=4, length=16)


def result(seconds: float, losses: list[float]) -> RunResult:
    return RunResult(seconds=seconds, tokens=64.0, targets=9.6, losses=losses, peak_mb=500.0)


def test_ratios_are_those_of_the_same_round() -> None:
    """The machine is ten times slower in the last round, for both: the ratio does not change."""
    fast = [result(1.0, [4.0]), result(1.25, [3.0]), result(10.0, [2.0])]
    slow = [result(2.0, [5.0]), result(2.0, [5.0]), result(20.0, [5.0])]
    summary = summarize(fast, slow, ceiling=1e9, workload=WORKLOAD)
    assert (summary["ratio_min"], summary["ratio"], summary["ratio_max"]) == (1.6, 2.0, 2.0)
    assert summary["tokens_per_second"] == 64 / 1.25
    assert summary["loss"] == 2.0


def test_arithmetic_is_counted_the_same_for_all() -> None:
    slow, fast = [result(2.0, [5.0])] * 3, [result(1.0, [4.0])] * 3
    shares = [summarize(own, slow, 1e9, WORKLOAD)["flops_share"] for own in (slow, fast)]
    assert shares[0] == pytest.approx(32 * flops_per_token(WORKLOAD.model, 1000, 16, scored=0.15, skipped=0.85) / 1e9)
    assert shares[1] == 2 * shares[0]


def test_table() -> None:
    slow = [result(2.0, [5.0])] * 3
    text = table("tiny", {"hf-loop-fp32": summarize(slow, slow, 1e9, WORKLOAD)}, {"hf-loop-bf16": "out of memory"})
    assert "| hf-loop-fp32 | 32 | 2000.0 | 1.00 (1.00 to 1.00) |" in text
    assert "hf-loop-bf16 failed: out of memory" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_reference_kernels_are_pytorchs() -> None:
    x = torch.ones(1000)
    with reference_kernels():
        torch.manual_seed(3)
        dropped = Dropout(0.5).train()(x)
        torch.manual_seed(3)
        assert torch.equal(dropped, F.dropout(x, 0.5))
    torch.manual_seed(3)
    assert not torch.equal(Dropout(0.5).train()(x), dropped)
