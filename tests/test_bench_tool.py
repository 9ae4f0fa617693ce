"""tools/bench.py at a tiny size: everybody does the same work, and what is written can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

BENCH = [sys.executable, str(REPOSITORY / "tools" / "bench.py"), "shape=tiny", "rounds=3"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_contenders_do_the_same_work(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    output = tmp_path / "speed.jsonl"
    subprocess.run([*BENCH, f"output={output}"], env=ENVIRONMENT, check=True, capture_output=True)
    results = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [result["contender"] for result in results] == [
        "ours-fp32",
        "ours-bf16",
        "hf-fp32",
        "hf-bf16",
        "ancestor-fp32",
    ]
    assert len({result["parameters"] for result in results}) == 1
    losses = [result["first_loss"] for result in results]
    assert max(losses) - min(losses) < 1e-5
    for result in results:
        shares = result["shares"]
        parts = sum(shares[part] for part in ("forward", "backward", "optimizer", "other"))
        assert parts == pytest.approx(1, abs=0.05)
        assert 0 < result["ratio_least"] <= result["ratio"] <= result["ratio_most"]
        assert result["last_loss"] == pytest.approx(losses[0], abs=3)
        assert result["peak_mb"] > result["imports_mb"] > 50
    assert [result["ratio"] for result in results if result["contender"] == "hf-fp32"] == [1.0]


@pytest.mark.slow
def test_who_is_not_there_is_refused() -> None:
    done = subprocess.run([*BENCH, "contender=megatron"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "megatron" in done.stderr
    assert "ancestor-fp32" in done.stderr
