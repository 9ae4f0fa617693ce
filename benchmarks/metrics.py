"""Figures of a suite, and the environment in which they were measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from benchmarks.protocol import RunResult
from benchmarks.workloads import Workload
from xlmtrain.metrics.flops import flops_per_token


def summarize(
    results: Sequence[RunResult], baseline: Sequence[RunResult], ceiling: float, workload: Workload
) -> dict[str, Any]:
    """Return one system's figures; ``baseline``: results of the system that the ratio of speeds is to, round by round.

    ``flops_share``: useful FLOP per second, the same count per token for every system, as a share of ``ceiling``.
    ``loss``: mean of the last quarter of the steps.
    """
    speeds = [result.tokens / result.seconds for result in results]
    ratios = [speed / (other.tokens / other.seconds) for speed, other in zip(speeds, baseline)]
    losses = [loss for result in results for loss in result.losses]
    scored = sum(result.targets for result in results) / sum(result.tokens for result in results)
    flops = flops_per_token(workload.model, workload.vocab_size, workload.length, scored)
    return {
        "tokens_per_second": median(speeds),
        "seconds_per_step": sum(result.seconds for result in results) / len(losses),
        "ratio": median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "flops_share": median(speeds) * flops / ceiling,
        "targets_per_token": scored,
        "peak_mb": results[-1].peak_mb,
        "loss": mean(losses[-max(1, len(losses) // 4) :]),
        "losses": losses,
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return device, versions, commit, and the load of the machine."""
    packages = {"transformers", "accelerate"} & {d.metadata["Name"] for d in importlib.metadata.distributions()}
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: importlib.metadata.version(package) for package in sorted(packages)},
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 1),
    }


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # git is not installed
        return ""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "") or platform.processor()
