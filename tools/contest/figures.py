"""What the turns come to, and where they were taken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import torch

from contest.heat import Runner
from contest.shapes import Shape
from contest.worker import CONTENDERS
from xlmtrain.config.schema import ModelConfig
from xlmtrain.metrics.flops import flops_per_token

PARTS = ("forward", "backward", "optimizer", "other")


def figures_of(runner: Runner, against: Runner, ceiling: float, shape: Shape) -> dict[str, Any]:
    """Medians over the turns; ``ceiling``: FLOP a second of the clock that a large matrix product reaches."""
    own, unit = runner.turns, runner.told["unit"]
    # Tokens a second against tokens a second, as the shapes may differ.
    ratios = [(a.tokens / a.cost) / (b.tokens / b.cost) for a, b in zip(own, against.turns)]
    quarter, _, third = quantiles(ratios, n=4)
    speed = median(turn.tokens / turn.cost for turn in own)
    model = ModelConfig(dim=shape.dim, layers=shape.layers, heads=shape.heads)
    scored = median(turn.targets / turn.tokens for turn in own)
    flops = flops_per_token(model, shape.vocab_size, shape.length, scored)
    cost, losses = sum(turn.cost for turn in own), [loss for turn in own for loss in turn.losses]
    told = runner.told
    return {
        "contender": runner.name,
        "shape": runner.shape,
        f"tokens_per_{unit}": speed,
        f"targets_per_{unit}": median(turn.targets / turn.cost for turn in own),
        "seconds_per_step": cost / len(losses),
        "against": against.name,
        "ratio": median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
        "ratio_spread": (third - quarter) / median(ratios),
        "tokens_per_wall_second": sum(turn.tokens for turn in own) / sum(turn.wall for turn in own),
        "useful_flops_of_ceiling": speed * flops / ceiling,
        f"ceiling_flops_per_{unit}": ceiling,
        "shares": {
            **{part: sum(getattr(turn, part) for turn in own) / cost for part in PARTS},
            "loader": told["load_cpu"] * len(losses) / cost,
        },
        "data_wait": sum(turn.waited for turn in own) / sum(turn.wall for turn in own),
        "first_loss": told["first_loss"],
        "last_loss": losses[-1],
        "late_loss": mean(losses[-max(1, len(losses) // 4) :]),
        "losses": losses,
        "peak_mb": own[-1].peak_mb,
        **{key: told.get(key) for key in ("parameters", "imports_mb", "warm_up", "syncs", "checkpoint")},
    }


def dtype_of(contender: str) -> torch.dtype:
    """In what its matrix products are computed."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[CONTENDERS[contender].precision.value]


def surroundings(device: torch.device) -> dict[str, Any]:
    """Device, versions, commit, and what else the machine does."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "bf16_in_hardware": torch.cpu._is_avx512_bf16_supported(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": _version("transformers"),
        "accelerate": _version("accelerate"),
        "commit": _commit(),
        "load": os.getloadavg()[0],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git
        return ""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "") or platform.processor()
