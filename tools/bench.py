"""How fast training is on a CPU, beside what one would use instead.

    python tools/bench.py shape=D                                            6x256, vocabulary 30,000, 16 x 128 tokens
    python tools/bench.py shape=T rounds=5 contender=ours-bf16 contender=hf-fp32     6x1024, 64,000, 4 x 256 tokens
    python tools/bench.py shape=D data=prepared/ende output=speed.jsonl              real text, with its vocabulary

Every contender trains in a process of its own, on one thread, on the same batches from the same first weights; they
take turns, forwards in one round, backwards in the next. What counts is the CPU-seconds of a turn, and the median over
the rounds of the ratio to ``against``: on shared cores the clock tells little. Before the first turn all must have the
same number of parameters, the same batch, and the same loss without dropout, to 1e-5. Prints a table; ``output`` gets a
line of JSON for each contender. Needs ``pip install -e '.[bench]'``.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from contest.clock import matmul_flops
from contest.figures import dtype_of, figures_of, surroundings
from contest.heat import LEAST, Plan, Runner, run_heat
from contest.shapes import SHAPES, write_text
from contest.worker import CONTENDERS

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError

CPU = torch.device("cpu")
USUAL = (
    "ours-fp32",
    "ours-bf16",
    "hf-fp32",
    "hf-bf16",
    "hf-trainer-fp32",
    "hf-trainer-bf16",
    "ancestor-fp32",
)


@dataclass
class Bench:
    """The settings of this tool."""

    shape: str = "D"
    """D, T or tiny."""

    contender: list[str] = field(default_factory=list)
    """Who trains, one each: ours, hf (a plain loop), hf-trainer (transformers' Trainer) or ancestor, with -fp32 or
    -bf16; without any, all but the ancestor's bf16. All but the ancestor can be -compiled as well, by torch."""

    against: str = "hf-fp32"
    """Whom the ratios are to; the first contender if this one does not train."""

    rounds: int = 9
    """Turns of each."""

    steps: int = 1
    """Optimizer steps in a turn."""

    data: str | None = None
    """Directory made by tools/prepare.py; without it the text is made up."""

    output: str | None = None
    """File that the JSON lines are added to."""

    def __post_init__(self) -> None:
        self.contender = self.contender or list(USUAL)
        unknown = [name for name in self.contender if name not in CONTENDERS]
        if unknown or self.shape not in SHAPES:
            raise ConfigError(
                f"shape is one of {', '.join(SHAPES)}, contender of {', '.join(CONTENDERS)}; "
                f"not {', '.join(unknown) or self.shape}"
            )
        if self.rounds < LEAST or self.steps < 1:
            raise ConfigError(f"rounds is {LEAST} or more, steps 1 or more")


def main(argv: list[str]) -> None:
    """Let them train, print what it cost."""
    options, others = parse_args(Bench, argv)
    if others:
        raise ConfigError(f"not a setting: {' '.join(others)}")
    ceilings = {
        dtype: matmul_flops(dtype, CPU, 2048, 1024, 4096) for dtype in {dtype_of(name) for name in options.contender}
    }
    with ExitStack() as stack:
        data = options.data and Path(options.data)
        if not data:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            data = write_text(place / "text", SHAPES[options.shape].vocab_size)
        shape = replace(SHAPES[options.shape], vocab_size=len(Dataset(data).vocab))
        entries = [(name, options.shape) for name in options.contender]
        runners = run_heat(entries, data, CPU, Plan(options.rounds, options.steps, saves=3))
    failed = [f"{runner.name}: {runner.failure}" for runner in runners if runner.failure]
    if failed:
        raise ConfigError("; ".join(failed))
    against = next((runner for runner in runners if runner.name == options.against), runners[0])
    around = {**surroundings(CPU), "settings": asdict(options), **asdict(shape)}
    told = against.told
    print(f"{options.shape}: {told['parameters']:,} parameters, first loss {told['first_loss']:.6f}")
    print(
        "tokens and targets per CPU-second; the ratio's median, least and most; parts of the CPU time; memory; "
        "checkpoints' part, one in ten minutes"
    )
    for runner in runners:
        result = figures_of(runner, against, ceilings[dtype_of(runner.name)], shape)
        print(_line(runner, result))
        if options.output:
            with open(options.output, "a", encoding="utf-8") as file:
                file.write(json.dumps({**result, **around}) + "\n")


def _line(runner: Runner, result: dict[str, Any]) -> str:
    checkpoint = result["checkpoint"]
    return (
        f"{runner.name:16}{result['tokens_per_cpu_second']:8,.0f}{result['targets_per_cpu_second']:7,.0f}  "
        f"{result['ratio']:5.2f} ({result['ratio_least']:.2f} to {result['ratio_most']:.2f})  "
        + "  ".join(f"{part} {share:5.1%}" for part, share in result["shares"].items())
        + f"  {result['useful_flops_of_ceiling']:.0%} of the ceiling  {result['peak_mb']:,.0f} MB"
        + f"  last loss {result['last_loss']:.3f}"
        + (f"  checkpoint {checkpoint['share']:.2%}" if checkpoint else "")
    )


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
