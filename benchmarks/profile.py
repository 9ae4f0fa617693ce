"""Show which operations the time of a training step goes to.

    python -m benchmarks.profile                                 6 x 256, ours in bf16
    python -m benchmarks.profile suite=mt-256 system=ours-fp32

One system trains alone, on one thread, under torch's profiler. An operation's time is its own, without that of the
operations it calls. The last row has what is not in the table, Python among it. Times are those of the wall clock, so
other programs lengthen them.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.metrics import print_environment
from benchmarks.worker import BatchFeed, RunRequest, System, make_system, training_steps
from benchmarks.workloads import SUITES, SYSTEMS, write_synthetic_text
from xlmtrain.config.load import parse_options
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.data.loader import StepBatches
from xlmtrain.runtime.program import user_errors

_CPU = torch.device("cpu")


@dataclass
class ProfileOptions(CheckedSettings):
    """The settings of this program."""

    suite: str = "cpu-256"
    """Suite of workloads.py whose model and batches are trained."""

    system: str = "ours-bf16"
    """System of workloads.py."""

    steps: int = ranged(4, ABOVE_ZERO)
    """Steps in the profile, after as many that are not."""

    rows: int = ranged(14, ABOVE_ZERO)
    """Operations in the table."""

    def problems(self) -> Iterator[str]:
        """Yield values that cannot be."""
        for key, name, known in (("suite", self.suite, list(SUITES)), ("system", self.system, list(SYSTEMS))):
            if name not in known:
                yield f"{key}: {name} must be one of {', '.join(known)}"


def main(argv: list[str]) -> None:
    """Print a table with a row for each operation, the longest first."""
    options = parse_options(ProfileOptions, argv)
    torch.set_num_threads(1)
    workload = SUITES[options.suite].workload
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        sentences, pairs = SUITES[options.suite].sentences, workload.objective == "mt"
        data = write_synthetic_text(Path(directory, "text"), workload.vocab_size, sentences, pairs)
        system, loader = make_system(options.system, workload, data, _CPU)
        batches = training_steps(options.system, workload, data, loader)
        _train(system, batches, options.steps)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            started = time.perf_counter()
            _train(system, batches, options.steps)
            step = 1e3 * (time.perf_counter() - started) / options.steps
    print_environment(_CPU)
    print(f"{options.suite}, {options.system}: {step:.0f} ms a step under the profiler\n")
    print("| operation | share | ms a step | calls a step |\n| --- | ---: | ---: | ---: |")
    events = sorted(found.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)[: options.rows]
    rows = [
        (event.key.removeprefix("aten::"), event.self_cpu_time_total / 1e3 / options.steps, event.count / options.steps)
        for event in events
    ]
    for name, milliseconds, calls in rows:
        print(f"| {name} | {milliseconds / step:.1%} | {milliseconds:.1f} | {calls:.0f} |")
    rest = step - sum(milliseconds for _, milliseconds, _ in rows)
    print(f"| all else | {rest / step:.1%} | {rest:.1f} | |")


def _train(system: System, batches: Iterator[StepBatches], steps: int) -> None:
    """Train ``steps`` steps in this process."""
    mine, theirs = multiprocessing.Pipe()
    for message in (RunRequest(0, steps), None):
        mine.send(message)
    system.train(BatchFeed(theirs, batches, _CPU))


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
