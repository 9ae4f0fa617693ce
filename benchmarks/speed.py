"""Compare the training speed and memory of this package with what one would use instead.

    python -m benchmarks.speed                              main table: 6 x 256, 16 x 128 tokens per step
    python -m benchmarks.speed suite=cpu-1024 system=ours-bf16 system=hf-loop-fp32 baseline=hf-loop-fp32
    python -m benchmarks.speed device=cuda suite=gpu-32k suite=gpu-8k output=speed_gpu.jsonl > speed_gpu.md

Every system trains in a process of its own, on the same batches from the same initial weights: ours, transformers'
Trainer, a plain loop around transformers' model, and the original XLM's loop. All must have the same number of
parameters, the same first batch and, without dropout, the same first loss. They then train in turn, round by round, so
that whatever else the machine does slows all of them alike. On a CPU each has one thread and speeds are per CPU-second;
on a GPU they are per second.

Ratio: speed by that of the baseline in the same round; median of the rounds, smallest and largest. Ceiling: a large
matrix product in the same precision. Needs ``pip install -e '.[bench]'``; a system whose packages are missing fails,
and the others go on.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # transformers' Trainer would use all GPUs

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.metrics import matmul_flops, print_environment, summarize, table
from benchmarks.runner import MIN_ROUNDS, run_suite, working
from benchmarks.workloads import SUITES, SYSTEMS, Suite, write_synthetic_text
from xlmtrain.config.load import parse_options
from xlmtrain.config.train import Device
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.data.dataset import Dataset
from xlmtrain.runtime.output_paths import replace_file
from xlmtrain.runtime.program import user_errors


@dataclass
class SpeedOptions(CheckedSettings):
    """The settings of this program."""

    suite: list[str] = field(default_factory=list)
    """Suites of workloads.py to run, one argument for each; none: cpu-256."""

    system: list[str] = field(default_factory=list)
    """Systems to compare instead of the suite's, one argument for each: ours, hf-loop, hf-trainer, xlm,
    plain-mt or shuffled-mt, with -fp32, -bf16 or, for ours, -fp16, and perhaps -compiled (the first three)."""

    baseline: str = "hf-loop-fp32"
    """System that the ratios are to; the first one if this one is not in the suite or fails."""

    rounds: int | None = None
    """Rounds instead of the suite's, at least 3."""

    steps: int | None = ranged(None, ABOVE_ZERO)
    """Measured optimizer steps per round instead of the suite's."""

    device: Device = Device.cpu
    """cpu or cuda."""

    data: str | None = None
    """Directory made by xlmtrain prepare, with German and English; null: synthetic text."""

    init: str | None = None
    """Run of xlmtrain train whose weights all systems begin with, of the shape of the suite and the vocabulary of
    data=; null: random weights. With it back-translation makes sentences that end."""

    output: str | None = None
    """New file for a line of JSON for each system."""

    def problems(self) -> Iterator[str]:
        """Yield values that cannot be."""
        for key, names, known in (("suite", self.suite, list(SUITES)), ("system", self.system, list(SYSTEMS))):
            for unknown in set(names).difference(known):
                yield f"{key}: {unknown} must be one of {', '.join(known)}"
        if self.rounds is not None and self.rounds < MIN_ROUNDS:
            yield f"rounds: {self.rounds} is less than {MIN_ROUNDS}"
        if self.device is Device.auto or (self.device is Device.cuda and not torch.cuda.is_available()):
            yield f"device: {self.device.value} must be cpu, or cuda on a machine with a GPU"


def main(argv: list[str]) -> None:
    """Run the suites one after the other and print a table for each as soon as it is there."""
    options = parse_options(SpeedOptions, argv)
    lines = ""
    if options.output is not None:
        replace_file("output", options.output, lines, lambda _: False)  # refused before the long run
    facts = print_environment(torch.device(options.device.value))
    for name in options.suite or ["cpu-256"]:
        suite = SUITES[name]
        systems, rounds = tuple(options.system) or suite.systems, options.rounds or suite.rounds
        suite = replace(suite, systems=systems, rounds=rounds, steps=options.steps or suite.steps)
        with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
            data = Path(options.data or directory, "" if options.data else "text")
            if not options.data:
                write_synthetic_text(data, suite.workload.vocab_size, suite.sentences, suite.workload.objective == "mt")
            figures = _run(name, suite, data, options)
        if options.output is not None:
            written, lines = lines, lines + "".join(json.dumps({**line, **facts}) + "\n" for line in figures)
            replace_file("output", options.output, lines, written.__eq__)


def _run(name: str, suite: Suite, data: Path, options: SpeedOptions) -> list[dict[str, Any]]:
    """Run one suite and print its table; return the figures of each system."""
    device = torch.device(options.device.value)
    workload = replace(suite.workload, vocab_size=len(Dataset(data).vocab), init=options.init)
    dtypes = {SYSTEMS[system].dtype for system in suite.systems}
    ceilings = {dtype: matmul_flops(dtype, device) for dtype in dtypes}
    if device.type == "cuda":
        torch.cuda.empty_cache()
    processes = run_suite(replace(suite, workload=workload), data, device)
    able = working(processes)
    baseline = next((process for process in able if process.name == options.baseline), able[0] if able else None)
    summaries = {
        process.name: summarize(process.results, baseline.results, ceilings[SYSTEMS[process.name].dtype], workload)
        for process in able
        if baseline
    }
    failures = {process.name: process.failure for process in processes if process.failure}
    shown = ", ".join(f"{str(dtype).removeprefix('torch.')} {flops / 1e12:.3g}" for dtype, flops in ceilings.items())
    title = f"{name}: {workload.title}"
    if able and baseline:
        title += f", {baseline.info.parameters:,} parameters"
    print(table(f"{title}; ceiling in TFLOP/s: {shown}", summaries, failures), flush=True)
    return [{"suite": name, "system": system, **summary, **asdict(workload)} for system, summary in summaries.items()]


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
