"""How fast training is, beside what one would use instead.

    python tools/bench.py shape=D                                            6x256, vocabulary 30,000, 16 x 128 tokens
    python tools/bench.py shape=T rounds=5 contender=ours-bf16 contender=hf-fp32     6x1024, 64,000, 4 x 256 tokens
    python tools/bench.py shape=D data=prepared/ende output=speed.jsonl              real text, with its vocabulary

Every contender trains in a process of its own, on one thread, on the same batches from the same first weights; they
take turns, forwards in one round, backwards in the next. What counts is the CPU-seconds of a turn, and the median over
the rounds of the ratio to ``against``: on shared cores the clock tells little. Before the first turn all must have the
same number of parameters, the same batch, and the same loss without dropout, to 1e-5. Prints a table; ``output`` gets a
line of JSON for each contender. Needs ``pip install -e '.[hf]'``.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"

import importlib.metadata
import json
import multiprocessing
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from contest.shapes import SHAPES, write_text
from contest.worker import CONTENDERS, Turn, matmul_flops, serve

from xlmtrain.config.load import arguments, user_errors
from xlmtrain.config.schema import ModelConfig, Precision
from xlmtrain.data.corpus import Dataset
from xlmtrain.errors import ConfigError
from xlmtrain.metrics.flops import flops_per_token

SAME_LOSS = 1e-5
WARM_UP = 2


@dataclass
class Bench:
    """The settings of this tool."""

    shape: str = "D"
    """D, T or tiny."""

    contender: list[str] = field(default_factory=list)
    """Who trains, one each: ours, hf or ancestor, with -fp32 or -bf16; without any, all but the ancestor's bf16."""

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
        self.contender = self.contender or [name for name in CONTENDERS if name != "ancestor-bf16"]
        unknown = [name for name in self.contender if name not in CONTENDERS]
        if unknown or self.shape not in SHAPES:
            raise ConfigError(
                f"shape is one of {', '.join(SHAPES)}, contender of {', '.join(CONTENDERS)}; "
                f"not {', '.join(unknown) or self.shape}"
            )
        if self.rounds < 3 or self.steps < 1:
            raise ConfigError("rounds is 3 or more, steps 1 or more")


def main(argv: list[str]) -> None:
    """Let them train, print what it cost."""
    options, others = arguments(Bench, argv)
    if others:
        raise ConfigError(f"not a setting: {' '.join(others)}")
    ceilings = {Precision.fp32: matmul_flops(torch.float32), Precision.bf16: matmul_flops(torch.bfloat16)}
    with ExitStack() as stack:
        data = options.data and Path(options.data)
        if not data:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            data = write_text(place / "text", SHAPES[options.shape].vocab_size)
        context = multiprocessing.get_context("spawn")
        lines: dict[str, Connection] = {}
        told: dict[str, dict[str, Any]] = {}
        for name in options.contender:  # one after the other: they would disturb each other
            lines[name], theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, name, options.shape, data), daemon=True)
            process.start()
            theirs.close()
            told[name] = lines[name].recv()
        _check_same(told)
        turns = _take_turns(lines, options)
        for name, line in lines.items():
            line.send(0)
            told[name] |= line.recv()
        vocab_size = len(Dataset(data).vocab)
    _report(options, turns, told, ceilings, vocab_size)


def _check_same(told: dict[str, dict[str, Any]]) -> None:
    """Raise ConfigError unless all do the same work."""
    first, *rest = told
    for name in rest:
        for key in ("parameters", "batch", "first_loss"):
            a, b = told[first][key], told[name][key]
            if abs(a - b) > (SAME_LOSS if key == "first_loss" else 0):
                raise ConfigError(f"not the same work: {key} of {first} is {a}, of {name} {b}")


def _take_turns(lines: dict[str, Connection], options: Bench) -> dict[str, list[Turn]]:
    def take(name: str, steps: int) -> Turn:
        lines[name].send(steps)
        return lines[name].recv()

    for name in lines:
        take(name, WARM_UP)
    turns: dict[str, list[Turn]] = {name: [] for name in lines}
    for number in range(options.rounds):
        order = list(lines) if number % 2 == 0 else list(lines)[::-1]
        for name in order:
            turns[name].append(take(name, options.steps))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return turns


def _report(
    options: Bench,
    turns: dict[str, list[Turn]],
    told: dict[str, dict[str, Any]],
    ceilings: dict[Precision, float],
    vocab_size: int,
) -> None:
    against = options.against if options.against in turns else next(iter(turns))
    shape = SHAPES[options.shape]
    model = ModelConfig(dim=shape.dim, layers=shape.layers, heads=shape.heads)
    surroundings = _surroundings()
    print(f"{options.shape}: {told[against]['parameters']:,} parameters, first loss {told[against]['first_loss']:.6f}")
    print("tokens and targets per CPU-second; the ratio's median, least and most; parts of the CPU time; memory")
    for name, own in turns.items():
        ratios = [b.cpu / a.cpu for a, b in zip(own, turns[against])]
        quarter, _, third = quantiles(ratios, n=4)
        speed = median(turn.tokens / turn.cpu for turn in own)
        flops = flops_per_token(model, vocab_size, shape.length, median(t.targets / t.tokens for t in own))
        cpu = sum(turn.cpu for turn in own)
        shares = {
            part: sum(getattr(t, part) for t in own) / cpu for part in ("forward", "backward", "optimizer", "other")
        }
        result = {
            "contender": name,
            "tokens_per_cpu_second": speed,
            "targets_per_cpu_second": median(turn.targets / turn.cpu for turn in own),
            "against": against,
            "ratio": median(ratios),
            "ratio_least": min(ratios),
            "ratio_most": max(ratios),
            "ratio_spread": (third - quarter) / median(ratios),
            "tokens_per_second": sum(t.tokens for t in own) / sum(t.wall for t in own),
            "useful_flops_of_ceiling": speed * flops / ceilings[CONTENDERS[name][1]],
            "ceiling_flops_per_cpu_second": ceilings[CONTENDERS[name][1]],
            "shares": {**shares, "loader": told[name]["load_cpu"] * options.steps * len(own) / cpu},
            "data_wait": sum(t.waited for t in own) / sum(t.wall for t in own),
            "peak_mb": told[name]["peak_mb"],
            "imports_mb": told[name]["imports_mb"],
            "parameters": told[name]["parameters"],
            "first_loss": told[name]["first_loss"],
            "last_loss": own[-1].loss,
        }
        print(
            f"{name:14}{speed:8,.0f}{result['targets_per_cpu_second']:7,.0f}  {result['ratio']:5.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})  "
            + "  ".join(f"{part} {share:5.1%}" for part, share in result["shares"].items())
            + f"  {result['useful_flops_of_ceiling']:.0%} of the ceiling  {result['peak_mb']:,.0f} MB"
            + f"  last loss {own[-1].loss:.3f}"
        )
        if options.output:
            with open(options.output, "a", encoding="utf-8") as file:
                file.write(json.dumps({**result, **surroundings, "settings": asdict(options), **asdict(shape)}) + "\n")


def _surroundings() -> dict[str, Any]:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    cpu = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    return {
        "device": cpu or platform.processor(),
        "bf16_in_hardware": torch.cpu._is_avx512_bf16_supported(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
        "commit": commit,
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
