"""Figures of a suite, their table in Markdown, and the environment in which they were measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch.utils.benchmark import Timer

from benchmarks.worker import RunResult, clock
from benchmarks.workloads import Workload
from xlmtrain.metrics.flops import flops_per_token, skipped_share

_PEERS = {"transformers", "accelerate", "tokenizers", "sentence-transformers", "sacremoses", "fastBPE"}
_COLUMNS = ("", "tokens/s", "ms per step", "ratio", "of the ceiling", "memory", "loss")


def summarize(
    results: Sequence[RunResult], baseline: Sequence[RunResult], ceiling: float, workload: Workload
) -> dict[str, Any]:
    """Return one system's figures; ``baseline``: results of the system that the ratio of speeds is to, round by round.

    ``flops_share``: useful FLOP per second, the same count per token for every system, as a share of ``ceiling``.
    Attention to sources, and what translates them, is not among it. ``loss``: mean of the last quarter of the steps.
    """
    speeds = [result.tokens / result.seconds for result in results]
    ratios = [speed / (other.tokens / other.seconds) for speed, other in zip(speeds, baseline)]
    losses = [loss for result in results for loss in result.losses]
    scored = sum(result.targets for result in results) / sum(result.tokens for result in results)
    translated, length = (0.0, workload.length) if workload.objective == "mlm" else (1.0, 0)
    shares = scored, translated, skipped_share(scored, translated)
    flops = flops_per_token(workload.model, workload.vocab_size, length, *shares)
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


def print_environment(device: torch.device) -> dict[str, Any]:
    """Print and return device, a CPU's instructions, versions, commit, and the load of the machine."""
    packages = _PEERS & {d.metadata["Name"] for d in importlib.metadata.distributions()}
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        **({"instructions": _instructions()} if device.type == "cpu" else {}),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: importlib.metadata.version(package) for package in sorted(packages)},
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(f"{', '.join(f'{key} {value}' for key, value in facts.items())}\n", flush=True)
    return facts


def _instructions() -> str:
    capabilities = torch.cpu.get_capabilities()
    names = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    return " ".join(names) or torch.backends.cpu.get_cpu_capability()


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # git is not installed
        return ""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "") or platform.processor()


def matmul_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOP per second of the fastest of several large matrix products, the ceiling for training."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timer = Timer("torch.mm(a, b)", globals={"torch": torch, "a": a, "b": b}, timer=partial(clock, device))
    return 2 * size**3 / min(timer.blocked_autorange(min_run_time=1.0).times)


def table(title: str, summaries: Mapping[str, dict[str, Any]], failures: Mapping[str, str]) -> str:
    """Return one row per system in ``summaries``, then a line per failure."""
    lines = [f"## {title}", "", f"| {' | '.join(_COLUMNS)} |", f"| --- {'| ---: ' * (len(_COLUMNS) - 1)}|"]
    lines += [_row(name, summary) for name, summary in summaries.items()]
    lines += [f"\n{name} failed: {reason}" for name, reason in failures.items()]
    return "\n".join(lines) + "\n"


def _row(name: str, summary: dict[str, Any]) -> str:
    cells = (
        name,
        f"{summary['tokens_per_second']:,.0f}",
        f"{1e3 * summary['seconds_per_step']:.1f}",
        f"{summary['ratio']:.2f} ({summary['ratio_min']:.2f} to {summary['ratio_max']:.2f})",
        f"{summary['flops_share']:.1%}",
        f"{summary['peak_mb']:,.0f} MB",
        f"{summary['loss']:.4f}",
    )
    return f"| {' | '.join(cells)} |"
