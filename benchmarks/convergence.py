"""Check that the fast path learns as well: fp32 with PyTorch's own kernels, fp32, and bf16, for three seeds.

    python -m benchmarks.convergence experiment=small_cpu data.path=prepared/ende train.steps=500 \
        optim.warmup_steps=100 model.dropout=0.1 model.attention_dropout=0.1

Takes the settings of xlmtrain train, trains into subdirectories of ``run``. Prints the training loss over time, mean of
the seeds; then for each variant the loss of the last fifth of the steps and the log perplexity of validation, and the
mean difference to the first variant with its standard error, from pairs of the same seed and so of the same batches.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from unittest import mock

from xlmtrain.commands.train import train
from xlmtrain.config.load import hydra_main
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.metrics.loggers import read_records
from xlmtrain.model.kernels import dispatch
from xlmtrain.runtime.distributed import initialize
from xlmtrain.runtime.process import StopRequest

SEEDS = (0, 1, 2)
VARIANTS = {"fp32-reference": Precision.fp32, "fp32": Precision.fp32, "bf16": Precision.bf16}
WINDOWS = 10


@contextmanager
def reference_kernels() -> Iterator[None]:
    """Compute with the reference of every kernel on a CPU too."""
    with mock.patch.object(dispatch, "use_cpu_kernels", return_value=False):
        yield


def main(base: Config) -> None:
    """Train all variants with all seeds and print the comparison."""
    runs = {variant: [_run(base, variant, seed) for seed in SEEDS] for variant in VARIANTS}
    size = max(1, base.train.steps // WINDOWS)
    print(f"| steps | {' | '.join(VARIANTS)} |\n| --- |{' ---: |' * len(VARIANTS)}")
    for begin in range(0, base.train.steps, size):
        means = [mean(mean(losses[begin : begin + size]) for losses, _ in seeds) for seeds in runs.values()]
        print(f"| {begin + 1} to {begin + size} | " + " | ".join(f"{value:.4f}" for value in means) + " |")
    fifth = max(1, base.train.steps // 5)
    for title, values in (
        ("last fifth", {variant: [mean(losses[-fifth:]) for losses, _ in seeds] for variant, seeds in runs.items()}),
        ("validation", {variant: [valid for _, valid in seeds] for variant, seeds in runs.items()}),
    ):
        for variant, own in values.items():
            pairs = [a - b for a, b in zip(own, values["fp32-reference"])]
            error = stdev(pairs) / math.sqrt(len(pairs))
            print(
                f"{title}, {variant}: mean {mean(own):.4f}, standard deviation {stdev(own):.4f}; "
                f"difference {mean(pairs):+.4f}, standard error {error:.4f}"
            )


def _run(base: Config, variant: str, seed: int) -> tuple[list[float], float]:
    """Return the loss of every step, and the log of the last validation perplexity."""
    run = Path(base.run) / f"{variant}-{seed}"
    settings = replace(base.train, precision=VARIANTS[variant], log_every=1)
    config = replace(base, run=str(run), seed=seed, train=settings)
    with reference_kernels() if variant == "fp32-reference" else nullcontext():
        outcome = train(config, initialize(base.train.device, base.train.hang_timeout), StopRequest())
    if outcome.status != "done":
        raise SystemExit(f"stopped by {outcome.reason}; the same command continues")
    records = list(read_records(run / "metrics.jsonl"))
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    perplexity = next(record["valid/mlm_ppl"] for record in reversed(records) if "valid/mlm_ppl" in record)
    print(f"{run}: done", file=sys.stderr)
    return losses, math.log(perplexity)


if __name__ == "__main__":
    hydra_main("config", main, sys.argv[1:])
