"""Check training on a GPU in ten minutes, and measure it (``make test-gpu``).

    python -m benchmarks.gpu_check                  on a machine with a GPU
    python -m benchmarks.gpu_check device=cpu       a rehearsal without one: the same parts with a tiny table of speed

Parts: the gpu tests; ten steps in every precision, compiled and sharded, whose losses must be those of the CPU in fp32;
a process that raises and one that is killed, and the seconds until torchrun has ended; tables of benchmarks.speed. Each
part runs in processes of its own with a time limit. One that fails, or takes too long, ends alone. ``output`` has a log
of each part and ``results.jsonl``, written as soon as the part is over. The exit code is 1 if a part failed.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.workloads import Workload, settings, write_synthetic_text
from xlmtrain.config.load import parse_options
from xlmtrain.config.train import Device, Precision, Sharding
from xlmtrain.config.validate import CheckedSettings
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.metrics.table import format_table
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed, initialize
from xlmtrain.runtime.output_paths import check_output_path, replace_file
from xlmtrain.runtime.program import user_errors
from xlmtrain.train.parallel import FsdpModel, ParallelModel, compile_blocks, parallelize, shard
from xlmtrain.train.step import TrainStep

WORKLOAD = Workload(dim=64, layers=2, heads=2, vocab_size=1000, rows=32, length=32)
STEPS = 10
TESTS = ("tests/train/test_gpu.py",)
BUDGET_SECONDS = 570.0
"""Time for all parts together; a part gets what is left of it, if that is less than its own limit."""
HALF_TOLERANCE, FULL_TOLERANCE = 5e-2, 1e-3
"""Largest relative difference from the CPU's losses in fp32, of half precision and of fp32."""
REFERENCE = "cpu-fp32"
VARIANTS = {
    "fp32": (Precision.fp32, False, Sharding.none),
    "fp16": (Precision.fp16, False, Sharding.none),
    "bf16": (Precision.bf16, False, Sharding.none),
    "bf16-compiled": (Precision.bf16, True, Sharding.none),
    "fp32-sharded": (Precision.fp32, False, Sharding.full),
    "fp16-sharded": (Precision.fp16, False, Sharding.full),
    "bf16-sharded": (Precision.bf16, False, Sharding.full),
    "bf16-sharded-compiled": (Precision.bf16, True, Sharding.full),
}


@dataclass
class GpuCheckOptions(CheckedSettings):
    """The settings of this program."""

    device: Device = Device.cuda
    """cuda, or cpu for a rehearsal."""

    output: str | None = None
    """Directory for logs and results, new or empty; null: a temporary one, which stays."""

    steps: Sharding | None = None
    """Take the steps of the variants with this sharding alone, on the text in ``output``. For this program's use."""

    def problems(self) -> Iterator[str]:
        """Yield values that cannot be."""
        if self.device is Device.auto or (self.device is Device.cuda and not torch.cuda.is_available()):
            yield f"device: {self.device.value} must be cuda on a machine with a GPU, or cpu for a rehearsal"


@dataclass(frozen=True)
class Result:
    """Outcome of a part. ``value``: what it measured, or why it failed."""

    part: str
    passed: bool
    seconds: float
    value: str


class Check:
    """Runs parts one after the other and keeps their results."""

    def __init__(self, directory: Path, device: Device) -> None:
        self.directory, self.device, self.results = directory, device, list[Result]()
        gpus = torch.cuda.device_count() if device is Device.cuda else 2
        self.processes = max(n for n in (1, 2, 4, 8) if n <= gpus)
        self._deadline = time.monotonic() + BUDGET_SECONDS
        self.data = write_synthetic_text(directory / "text", WORKLOAD.vocab_size, 2000)

    def run(
        self, part: str, limit: float, *words: str, judge: Callable[[int, str], tuple[bool, str]], fault: str = ""
    ) -> str:
        """Run ``python *words`` for at most ``limit`` seconds and record its result. Returns its standard output.

        ``judge``: exit code and output -> passed, value. ``fault``: as in XLMT_FAULT.
        """
        log, begun = self.directory / f"{part}.log", time.monotonic()
        limit = max(min(limit, self._deadline - begun), 0.0)
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, *words],
                env={**os.environ, "XLMT_FAULT": fault, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # so that all its processes can be killed
            )
            try:
                output, _ = process.communicate(timeout=limit)
                passed, value = judge(process.returncode, output)
            except subprocess.TimeoutExpired:
                output, passed, value = _end(process), False, f"ended after {limit:.0f} s"
            except (ValueError, IndexError, OSError) as error:  # an output that cannot be read
                passed, value = False, f"exit code {process.returncode}; {type(error).__name__}: {error}"
            errors.write(output)
        self.record(Result(part, passed, round(time.monotonic() - begun, 1), value))
        return output

    def record(self, result: Result) -> None:
        """Keep a result, on the disk too, and print it."""
        self.results.append(result)
        lines = [json.dumps(asdict(one)) + "\n" for one in self.results]
        replace_file("output", self.directory / "results.jsonl", "".join(lines), "".join(lines[:-1]).__eq__)
        print(f"{result.part}: {'passed' if result.passed else 'FAILED'}, {result.value}", flush=True)

    def tests(self) -> None:
        """Run the tests that need a GPU; without one they skip themselves."""

        def judge(code: int, output: str) -> tuple[bool, str]:
            return code == 0, output.strip().splitlines()[-1]

        self.run("tests", 150, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *TESTS, judge=judge)

    def steps(self) -> None:
        """Take steps in every variant and compare the losses with those of the CPU in fp32."""
        reference: list[float] | None = None
        for sharding, processes in ((Sharding.none, 1), (Sharding.full, self.processes)):
            words = (f"output={self.directory}", f"device={self.device.value}", f"steps={sharding.value}")
            start = (*self._torchrun(processes), "-m", "benchmarks.gpu_check", *words)
            part = f"steps-sharding-{sharding.value}"
            output = self.run(part, 200, *start, judge=lambda code, _: (code == 0, f"exit code {code}"))
            found = dict(json.loads(line) for line in output.splitlines() if line.startswith('["'))
            reference = found.pop(REFERENCE, reference)
            for name, (precision, _, kind) in VARIANTS.items():
                if kind is sharding:
                    self.record(compare(name, precision, found.get(name, "no losses"), reference))

    def teardown(self) -> None:
        """Measure the seconds from a fault in the last rank to the end of all processes."""
        for action in ("raise", "kill"):
            run = self.directory / f"run-{action}"

            def judge(code: int, output: str, run: Path = run) -> tuple[bool, str]:
                seconds = time.time() - (run / "metrics.jsonl").stat().st_mtime
                return code != 0 and seconds <= 45, f"{seconds:.1f} s after the last step, {self.processes} processes"

            words = [
                *(f"run={run}", f"data.path={self.data}", "data.mlm={de: 1.0, en: 1.0}", "model.dim=64"),
                *("model.layers=2", "model.heads=2", "train.steps=100000", "train.log_every=1"),
                *("train.batch_tokens=4096", "data.sub_batch_tokens=512", "data.sequence_length=32"),
                *("train.hang_timeout=40", f"train.device={self.device.value}"),
            ]
            fault = f"step:20:{self.processes - 1}:{action}"
            start = self._torchrun(self.processes)
            self.run(f"teardown-{action}", 75, *start, "train.py", *words, judge=judge, fault=fault)

    def speed(self) -> None:
        """Print the table of benchmarks.speed."""

        def judge(code: int, output: str) -> tuple[bool, str]:
            print(output)
            return code == 0, f"{len(table.read_text().splitlines())} systems"

        suites: dict[str, tuple[str, ...]] = {"gpu-8k": (), "gpu-precisions": ()}
        if self.device is Device.cpu:
            suites = {"tiny": ("system=ours-bf16", "system=hf-loop-bf16", "system=hf-trainer-bf16")}
        for suite, systems in suites.items():
            table = self.directory / f"speed-{suite}.jsonl"
            words = (f"device={self.device.value}", f"suite={suite}", *systems, "rounds=3", f"output={table}")
            self.run(f"speed-{suite}", 200, "-m", "benchmarks.speed", *words, judge=judge)

    @staticmethod
    def _torchrun(processes: int) -> tuple[str, ...]:
        return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")


def _end(process: subprocess.Popen[str]) -> str:
    """End a process and its children, and return the rest of its output. torchrun ends its own on SIGTERM."""
    process.terminate()
    try:
        return process.communicate(timeout=15)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def compare(name: str, precision: Precision, losses: list[float] | str, reference: list[float] | None) -> Result:
    """Return the result of a variant. ``losses``: or why there are none."""
    if isinstance(losses, str) or reference is None:
        return Result(name, False, 0.0, losses if isinstance(losses, str) else f"no losses of {REFERENCE}")
    worst = max(abs(mine - cpu) / cpu for mine, cpu in zip(losses, reference, strict=True))
    tolerance = FULL_TOLERANCE if precision is Precision.fp32 else HALF_TOLERANCE
    return Result(name, worst <= tolerance, 0.0, f"loss {losses[-1]:.5f}, at most {worst:.1e} from the CPU's in fp32")


def print_losses(sharding: Sharding, device: Device, data: Path) -> None:
    """Print ``[variant, losses]`` as JSON for each variant with ``sharding``, or the error in place of the losses."""
    distributed = initialize(device)
    if sharding is Sharding.full and distributed.world_size == 1:  # shards on one GPU, to meet NCCL at least
        backend = "gloo" if device is Device.cpu else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    jobs = {name: distributed for name, (_, _, kind) in VARIANTS.items() if kind is sharding}
    if sharding is Sharding.none:
        jobs = {REFERENCE: Distributed(0, 1, torch.device("cpu")), **jobs}
    for name, where in jobs.items():
        try:
            losses: list[float] | str = losses_of(VARIANTS.get(name, VARIANTS["fp32"]), where, data)
        except Exception as error:  # the other variants may do better
            traceback.print_exc()
            losses = f"{type(error).__name__}: {error}"
        if distributed.is_main:
            print(json.dumps([name, losses]), flush=True)
    distributed.close()


def losses_of(variant: tuple[Precision, bool, Sharding], distributed: Distributed, data: Path) -> list[float]:
    """Return the losses per target of STEPS steps, all-reduced over the processes."""
    precision, compiled, sharding = variant
    config = settings(WORKLOAD, data, precision, compiled)
    config.model.dropout = config.model.attention_dropout = 0.0  # drawn by each device in its own way
    config.data.sub_batch_tokens //= 8
    config.train.sharding, config.train.initial_loss_scale = sharding, 2.0**12
    dataset = Dataset(data)
    loader = Loader(config, dataset, distributed.rank, distributed.world_size)
    torch.manual_seed(0)
    model = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
    if compiled:
        compile_blocks(model)
    if sharding is Sharding.full:
        shard(model, config.train, precision, distributed)
        parallel: ParallelModel = FsdpModel(model, distributed)
    else:
        parallel = parallelize(model, config.train, precision, distributed)
    step = TrainStep(config, parallel, make_optimizer(config.optim, model, distributed.device), precision, distributed)
    losses = []
    for shard_of_batch in loader.steps(0, STEPS, loader.sampler.initial_state()):
        targets = distributed.all_reduce_sum(shard_of_batch.targets)
        output = step(shard_of_batch, targets)
        losses.append(sum(distributed.all_reduce_sum(output.losses.tolist())) / sum(targets))
    return losses


def main(argv: list[str]) -> None:
    """Run all parts and print one table at the end."""
    options = parse_options(GpuCheckOptions, argv)
    directory = Path(options.output or tempfile.mkdtemp(prefix="gpu-check-"))
    if options.steps is not None:
        print_losses(options.steps, options.device, directory / "text")
        return
    check = Check(check_output_path("output", directory), options.device)
    for part in (check.tests, check.steps, check.teardown, check.speed):
        part()
    rows = [
        (one.part, "passed" if one.passed else "FAILED", f"{one.seconds:.0f} s", one.value) for one in check.results
    ]
    print(f"\n{format_table(rows, ('part', 'result', 'time', 'value'), left=(0, 1, 3))}\n\n{directory}", flush=True)
    sys.exit(not all(result.passed for result in check.results))


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
