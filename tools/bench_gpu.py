"""How fast training is on a GPU, how much memory it takes, and how near it comes to what the GPU can do.

    python tools/bench_gpu.py output=speed_gpu                    everything, in ten minutes at most
    python tools/bench_gpu.py output=speed_gpu heat=32k heat=8k   some of it
    python tools/bench_gpu.py output=tried shape=tiny device=cpu  whether it runs, without a GPU

Contenders train in heats: each in a process of its own, on the same batches from the same first weights, in turn,
forwards in one round, backwards in the next. A turn is some steps after two that do not count; its cost is the seconds
of the GPU, waiting for the host included. Before each heat a large matrix product is timed, the ceiling. Who fails, for
lack of memory, say, is reported, and the others go on; so does what there was no time for. After every heat
``output``.md is written anew, with a table for each, and ``output``.jsonl gets a line for each contender.
Needs ``pip install -e '.[bench]'``; contenders whose packages are missing fail.
"""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # with several, the Trainer would take them all

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from contest.clock import clock_of, matmul_flops
from contest.figures import dtype_of, figures_of, surroundings
from contest.heat import LEAST, Plan, run_heat
from contest.shapes import SHAPES, write_text
from contest.tables import page

from xlmtrain.config.load import parse_args, user_errors
from xlmtrain.config.schema import Device
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError


@dataclass(frozen=True)
class Heat:
    """Who trains together, as contender@shape; the ratios are to the first one."""

    title: str
    entries: tuple[str, ...]
    plan: Plan


def _all(shape: str, *contenders: str) -> tuple[str, ...]:
    return tuple(f"{contender}@{shape}" for contender in contenders)


_SPEED = Plan(rounds=10, steps=10, lead=2, warm_up=10, watched=3)
_PEERS = ("hf-trainer-bf16", "hf-bf16")
_COMPILED_PEERS = ("hf-trainer-bf16-compiled", "hf-bf16-compiled")
_OURS = ("ours-bf16", "ours-bf16-compiled")
# The most important first, as time may run out.
HEATS = {
    "32k": Heat("32,768 tokens a step", _all("T32k", *_PEERS, *_OURS, *_COMPILED_PEERS), _SPEED),
    "8k": Heat("8,192 tokens a step", _all("T8k", *_PEERS, *_OURS), replace(_SPEED, steps=30)),
    "12layers": Heat("12 layers, 32,768 tokens a step", _all("L32k", *_OURS), _SPEED),
    "fp16": Heat(
        "fp16 and fp32 beside bf16, 300 steps of 8,192 tokens",
        _all("T8k", "ours-bf16", "ours-fp16", "ours-bf16-compiled", "ours-fp16-compiled", "ours-fp32"),
        replace(_SPEED, steps=30),
    ),
    "memory": Heat("64 x 256 at once", _all("T16k", "ours-bf16", "ours-fp16"), replace(_SPEED, rounds=LEAST, saves=2)),
    "16k": Heat("16,384 tokens a step", _all("T16k", *_PEERS, *_OURS), _SPEED),
    "compiled": Heat(
        "compiled peers with fewer tokens a step",
        (*_all("T16k", *_COMPILED_PEERS), *_all("T8k", *_COMPILED_PEERS)),
        _SPEED,
    ),
}
_SENTENCES = 100_000  # of each language: five million tokens, more than any contender sees


@dataclass
class BenchGpu:
    """The settings of this tool."""

    output: str = "???"
    """Where the figures go: to this name with .md and with .jsonl."""

    heat: list[str] = field(default_factory=list)
    """What to run, one each; without any, everything."""

    shape: str | None = None
    """Everybody has this one instead of his own: tiny, to try it out."""

    device: Device = Device.cuda
    """cuda or cpu."""

    minutes: float = 8.5
    """No heat, and no round after a heat's third, begins after that."""

    rounds: int | None = None
    """Turns of each instead of the heats' own."""

    data: str | None = None
    """Directory made by tools/prepare.py; without it the text is made up."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.heat if name not in HEATS]
        if unknown or (self.shape is not None and self.shape not in SHAPES):
            raise ConfigError(
                f"heat is one of {', '.join(HEATS)}, shape of {', '.join(SHAPES)}; not "
                f"{', '.join(unknown) or self.shape}"
            )
        if self.rounds is not None and self.rounds < LEAST:
            raise ConfigError(f"rounds is {LEAST} or more")
        if not Path(self.output).absolute().parent.is_dir():
            raise ConfigError(f"output={self.output}: its directory does not exist")


def main(argv: list[str]) -> None:
    """Let them train, heat after heat."""
    begun = time.monotonic()
    options, others = parse_args(BenchGpu, argv)
    if others or options.device is Device.auto:
        raise ConfigError(f"not a setting: {' '.join(others)}" if others else "device is cuda or cpu")
    if options.device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError("device=cuda: there is no CUDA device; try shape=tiny device=cpu")
    device = torch.device("cuda", 0) if options.device is Device.cuda else torch.device("cpu")
    until = begun + 60 * options.minutes
    results: list[dict[str, Any]] = []
    around = {**surroundings(device), "settings": {**asdict(options), "device": options.device.value}}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for name in options.heat or HEATS:
            new = _run(name, options, device, until, Path(directory))
            with open(f"{options.output}.jsonl", "a", encoding="utf-8") as file:
                file.writelines(json.dumps({**result, **around}) + "\n" for result in new)
            results += new
            around["minutes"] = (time.monotonic() - begun) / 60
            Path(f"{options.output}.md").write_text(page(results, around), encoding="utf-8")
    print(page(results, around))


def _run(name: str, options: BenchGpu, device: torch.device, until: float, directory: Path) -> list[dict[str, Any]]:
    """The figures of one heat: of each contender those of his turns, or why there are none."""
    heat = HEATS[name]
    named = (entry.split("@") for entry in heat.entries)
    entries = list(dict.fromkeys((contender, options.shape or shape) for contender, shape in named))
    plan = replace(heat.plan, until=until, rounds=options.rounds or heat.plan.rounds)
    if time.monotonic() > until:
        return [_failed(heat.title, contender, shape, "no time was left") for contender, shape in entries]
    print(f"{name}: {heat.title}", file=sys.stderr, flush=True)
    vocab_size = SHAPES[entries[0][1]].vocab_size
    data = Path(options.data) if options.data else directory / str(vocab_size)
    if not options.data and not data.exists():
        write_text(data, vocab_size, _SENTENCES)
    vocab_size = len(Dataset(data).vocab)
    size = 8192 if device.type == "cuda" else 256
    dtypes = {dtype_of(contender) for contender, _ in entries}
    ceilings = {dtype: matmul_flops(dtype, device, size, size, size) for dtype in dtypes}
    clock_of(device).release()
    runners = run_heat(entries, data, device, plan)
    able = [runner for runner in runners if len(runner.turns) >= LEAST]
    results = []
    for runner in runners:
        if runner.failure:  # perhaps after all of its turns
            results.append(_failed(heat.title, runner.name, runner.shape, runner.failure))
        if runner in able:
            shape = replace(SHAPES[runner.shape], vocab_size=vocab_size)
            figures = figures_of(runner, able[0], ceilings[dtype_of(runner.name)], shape)
            results.append({"heat": heat.title, **figures, **asdict(shape)})
    return results


def _failed(heat: str, contender: str, shape: str, reason: str) -> dict[str, Any]:
    return {"heat": heat, "contender": contender, "shape": shape, "failure": reason}


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
