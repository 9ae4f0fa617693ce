"""tools/bench_gpu.py: its page, its run at a tiny size on a CPU, and how it counts waiting on a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from contest.syncs import SyncWatch
from contest.tables import page

from tests.support.repository import REPOSITORY

BENCH = [sys.executable, str(REPOSITORY / "tools" / "bench_gpu.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
AROUND = dict.fromkeys(("device", "torch", "cuda", "transformers", "accelerate", "commit"), "x") | {"minutes": 1.0}


def made_up(contender: str, shape: str, speed: float) -> dict[str, Any]:
    return {
        "heat": f"heat of {shape}",
        "contender": contender,
        "shape": shape,
        "tokens_per_second": speed,
        "seconds_per_step": 0.01,
        "ratio": 1.0,
        "ratio_least": 1.0,
        "ratio_most": 1.0,
        "useful_flops_of_ceiling": 0.5,
        "ceiling_flops_per_second": 8e14,
        "shares": {"forward": 0.3, "backward": 0.6, "optimizer": 0.05, "other": 0.05},
        "syncs": {"profiled": 0.0, "warned": 2.0},
        "data_wait": 0.001,
        "peak_mb": 1000.0,
        "late_loss": 8.0,
        "checkpoint": None,
        "layers": 6,
        "dim": 1024,
        "vocab_size": 64000,
    }


def test_everybody_is_compared_at_his_best_batch() -> None:
    failed = {"heat": "heat of T32k", "contender": "hf-bf16", "shape": "T32k", "failure": "OutOfMemoryError: too much"}
    results = [
        made_up("hf-trainer-bf16", "T32k", 300e3),
        made_up("ours-bf16", "T32k", 800e3),
        failed,
        made_up("hf-trainer-bf16", "T8k", 400e3),
        made_up("ours-bf16", "T8k", 600e3),
    ]
    text = page(results, AROUND)
    assert "ours-bf16@T32k 800,000" in text
    assert "hf-trainer-bf16@T8k 400,000" in text
    assert "ours-bf16: 2.00 x hf-trainer-bf16" in text
    assert "hf-bf16@T32k failed: OutOfMemoryError: too much" in text
    assert "| 0.0 / 2.0 |" in text


def test_a_page_of_failures_alone() -> None:
    failed = {"heat": "one", "contender": "ours-bf16", "shape": "T8k", "failure": "no time was left"}
    assert "ours-bf16@T8k failed: no time was left" in page([failed], AROUND)


@pytest.mark.slow
def test_it_runs_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    arguments = [f"output={tmp_path / 'tried'}", "shape=tiny", "device=cpu", "rounds=3", "heat=8k", "heat=memory"]
    subprocess.run([*BENCH, *arguments], env=ENVIRONMENT, check=True, capture_output=True)
    results = [json.loads(line) for line in (tmp_path / "tried.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(result["contender"], result.get("failure")) for result in results] == [
        ("hf-trainer-bf16", None),
        ("hf-bf16", None),
        ("ours-bf16", None),
        ("ours-bf16-compiled", None),
        ("ours-bf16", None),
        ("ours-fp16", None),
    ]
    assert [result["checkpoint"] is not None for result in results] == [False] * 4 + [True] * 2
    text = (tmp_path / "tried.md").read_text(encoding="utf-8")
    assert text.count("| ours-bf16@tiny |") == 2
    assert "ours-bf16-compiled: " in text


@pytest.mark.slow
def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    wrong = ["heat=marathon", "output=nowhere/x", *([] if torch.cuda.is_available() else ["device=cuda"])]
    for argument in wrong:
        arguments = [argument] if argument.startswith("output") else [argument, f"output={tmp_path / 'x'}"]
        done = subprocess.run([*BENCH, *arguments], env=ENVIRONMENT, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2
        assert argument.partition("=")[2] in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_waiting_is_counted() -> None:
    device = torch.device("cuda", 0)
    x = torch.randn(512, 512, device=device)
    counts = []
    for reads in (0, 0, 3):  # the first also makes libraries ready
        torch.cuda.synchronize()
        watch = SyncWatch(device)
        watch.start()
        total = (x @ x).sum()
        for _ in range(reads):
            total.item()
        counts.append(watch.stop())
    assert counts[1:] == [{"profiled": 0, "warned": 0}, {"profiled": 3, "warned": 3}]
