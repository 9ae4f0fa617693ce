"""Compare the speed of this package with what one would use instead, in one table (``make bench``).

    python -m benchmarks.peers                           preparation on the sample corpus
    python -m benchmarks.peers en=news.en de=news.de     preparation on other text

Training beside transformers' Trainer, a plain loop around its model, the original XLM's loop and torch's own
Transformer layers; text to ids beside sacremoses, fastBPE and Hugging Face's tokenizers; using a model beside
transformers' pipelines and sentence-transformers; translating beside transformers' ``generate``. Each is a benchmark
of its own, with more settings and figures: ``speed``, ``data``, ``use``, ``generation``. Here systems are compared in
equal precision, bf16 where the CPU has it, one thread each, in turn. On two cores it takes under half an hour, and up
to 15 GB of memory. Needs ``pip install -e '.[bench]'`` and runs from the repository's root.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks import data, generation, use
from benchmarks.comparison import Comparison, print_comparisons
from benchmarks.metrics import print_environment
from benchmarks.runner import run_suite, working
from benchmarks.workloads import SUITES, write_synthetic_text
from xlmtrain.config.load import parse_options
from xlmtrain.config.train import Precision
from xlmtrain.config.validate import CheckedSettings
from xlmtrain.runtime.precision import has_bf16
from xlmtrain.runtime.program import user_errors

CPU = torch.device("cpu")
TRAINING = {
    "cpu-128": ("hf-trainer", "hf-loop", "xlm"),
    "cpu-256": ("hf-trainer", "hf-loop", "xlm"),
    "cpu-1024": ("hf-trainer",),  # more do not fit the memory of a small machine
    "modernbert-256": ("hf-trainer",),
    "mt-256": ("plain-mt", "shuffled-mt"),
}
"""Suite -> programs to train beside ours."""
ROUNDS = 5
SAMPLE = Path("data/sample")


@dataclass
class PeersOptions(CheckedSettings):
    """The settings of this program."""

    en: list[str] = field(default_factory=list)
    """English text to prepare, one argument for each file; without any text, the sample corpus."""

    de: list[str] = field(default_factory=list)
    """German text to prepare, one argument for each file."""


def main(argv: list[str]) -> None:
    """Measure, and print the table."""
    options = parse_options(PeersOptions, argv)
    failures: list[str] = []
    print_environment(CPU)
    print_comparisons(all_comparisons(options, failures))
    if failures:
        sys.exit("\n".join(["systems failed, whose rows are missing:", *failures]))


def all_comparisons(options: PeersOptions, failures: list[str]) -> Iterator[Comparison]:
    """Yield a comparison for each work and peer; add the systems that failed to ``failures``."""
    en, de = options.en, options.de
    if not en and not de:
        en, de = [str(SAMPLE / "train.en")], [str(SAMPLE / "train.de")]
    precisions = [Precision.fp32, *([Precision.bf16] if has_bf16(CPU) else [])]
    yield from data.compare(data.DataOptions(en, de, rounds=ROUNDS, merges=8000))
    for name, peers in TRAINING.items():
        yield from compare_training(name, peers, precisions, failures)
    yield from compare_use(precisions)
    for precision in precisions:
        yield from generation.compare(generation.GenerationOptions(precision=precision, rounds=ROUNDS))


def compare_training(
    name: str, peers: tuple[str, ...], precisions: list[Precision], failures: list[str]
) -> Iterator[Comparison]:
    """Yield the speeds of training in the suite ``name`` in each of ``precisions``."""
    wanted = [f"{program}-{precision.value}" for precision in precisions for program in ("ours", *peers)]
    suite = replace(SUITES[name], systems=tuple(wanted), rounds=ROUNDS)
    workload = suite.workload
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        text = Path(directory, "text")
        write_synthetic_text(text, workload.vocab_size, suite.sentences, workload.objective == "mt")
        processes = run_suite(suite, text, CPU)
    failures += [f"{name}: {process.name}: {process.failure}" for process in processes if process.failure]
    speeds = {process.name: [done.tokens / done.seconds for done in process.results] for process in working(processes)}
    for precision in precisions:
        work, ours = f"train {workload.title}, {precision.value}", speeds.get(f"ours-{precision.value}")
        for peer in peers:
            theirs = speeds.get(f"{peer}-{precision.value}")
            if ours and theirs:
                yield Comparison(work, "tokens", ours, peer, theirs)


def compare_use(precisions: list[Precision]) -> Iterator[Comparison]:
    """Yield the speeds of using a model of 6 layers of 256, hardly trained, which makes no difference to them."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        prepared, run, exported = (str(Path(directory, name)) for name in ("prepared", "run", "exported"))
        run_command("prepare", "corpus=sample", f"output={prepared}")
        settings = (
            "experiment=small_cpu",
            "model.layers=6",
            "train.steps=1",
            "evaluate.max_tokens=500",
            "evaluate.max_pairs=1",
        )
        run_command("train", *settings, f"data.path={prepared}", f"run={run}", "train.device=cpu")
        run_command("export", f"model={run}", "format=hf", f"output={exported}")
        for precision in precisions:
            text = str(SAMPLE / "train.en")
            yield from use.compare(use.UseOptions(run, exported, text, precision=precision, rounds=ROUNDS))


def run_command(*words: str) -> None:
    """Run one of the package's commands; what it prints goes to standard error. Ends this program if it fails."""
    done = subprocess.run([sys.executable, "-m", "xlmtrain", *words], check=False, stdout=2)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
