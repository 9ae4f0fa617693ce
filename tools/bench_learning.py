"""Whether what is fast learns as well: the same runs in fp32 with torch's own dropout, in fp32, and in bf16.

    python tools/bench_learning.py experiment=small_cpu data.path=prepared/ende train.steps=500 optim.warmup_steps=100 \
        model.dropout=0.1 model.attention_dropout=0.1

Takes the settings of train.py; for the seeds 0, 1 and 2 it trains into subdirectories of ``run``. Prints the training
loss over time, means over the seeds, then for each run the loss of its last fifth and the validation loss, and how the
others differ from the first: pairs of the same seed, which begin alike and see the same batches.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import math
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from unittest import mock

from xlmtrain.config.load import hydra_main
from xlmtrain.config.schema import Config, Precision
from xlmtrain.metrics.loggers import read_records
from xlmtrain.runtime.distributed import initialize
from xlmtrain.runtime.process import StopRequest
from xlmtrain.train.loop import Outcome

SEEDS = (0, 1, 2)
WAYS = {
    "fp32, torch's dropout": (Precision.fp32, True),
    "fp32": (Precision.fp32, False),
    "bf16": (Precision.bf16, False),
}
POINTS = 10
ROOT = Path(__file__).resolve().parents[1]


def main(base: Config) -> None:
    """Train, compare."""
    train = runpy.run_path(str(ROOT / "train.py"))["train"]
    curves = {way: [_run(train, base, way, seed) for seed in SEEDS] for way in WAYS}
    size = max(1, base.train.steps // POINTS)
    print(f"{'steps':16}" + "".join(f"{way:>24}" for way in WAYS))
    for begin in range(0, base.train.steps, size):
        means = [mean(mean(losses[begin : begin + size]) for losses, _ in runs) for runs in curves.values()]
        print(f"{begin + 1:5} to {begin + size:<7}" + "".join(f"{value:24.4f}" for value in means))
    first = next(iter(WAYS))
    for what, pick in (("last fifth", _last_fifth), ("validation", lambda run: run[1])):
        for way, runs in curves.items():
            values = [pick(run) for run in runs]
            line = f"{what}, {way}: " + ", ".join(f"{value:.4f}" for value in values)
            line += f"; mean {mean(values):.4f}, standard deviation {stdev(values):.4f}"
            if way != first:
                pairs = [value - pick(run) for value, run in zip(values, curves[first])]
                line += f"; differs by {mean(pairs):+.4f}, standard error {stdev(pairs) / math.sqrt(len(pairs)):.4f}"
            print(line)


def _last_fifth(run: tuple[list[float], float]) -> float:
    losses, _ = run
    return mean(losses[-len(losses) // 5 :])


def _run(train: Callable[..., Outcome], base: Config, way: str, seed: int) -> tuple[list[float], float]:
    """The loss of every step, and the logarithm of the validation perplexity after the last."""
    precision, torchs = WAYS[way]
    run = Path(base.run) / f"{precision.value}{'-torchs-dropout' if torchs else ''}-{seed}"
    settings = replace(base.train, precision=precision, log_every=1)
    config = replace(base, run=str(run), seed=seed, train=settings)
    with mock.patch("xlmtrain.model.dropout.has_own_kernel", lambda x: not torchs and x.device.type == "cpu"):
        with mock.patch("xlmtrain.model.attention.has_own_kernel", lambda x: not torchs and x.device.type == "cpu"):
            outcome = train(config, initialize(base.train.device, base.train.hang_timeout), StopRequest())
    if outcome.status != "done":
        raise SystemExit(f"stopped by {outcome.reason}; the same command goes on")
    records = list(read_records(run / "metrics.jsonl"))
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    perplexity = next(record["valid/mlm_ppl"] for record in reversed(records) if "valid/mlm_ppl" in record)
    print(f"{run}: done", file=sys.stderr)
    return losses, math.log(perplexity)


if __name__ == "__main__":
    hydra_main("config", main)
