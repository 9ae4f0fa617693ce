"""Estimate a run on a cluster: memory, time of a step, communication, days and GPU hours.

    xlmtrain plan experiment=mlm_ende_1024 vocab_size=64699                      a table of clusters
    xlmtrain plan experiment=mlm_ende_1024 vocab_size=64699 gpu=V100 gpus=64     one of them in detail
    xlmtrain plan ... tokens_per_gpu=16384 network=100 price=2.5                 other batch, network, cost

Takes the settings of xlmtrain train. benchmarks/plan.md compares the estimates with published measurements.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xlmtrain.config.load import compose, parse_args
from xlmtrain.config.phases import combined_data
from xlmtrain.config.schema import Config
from xlmtrain.config.validate import ABOVE_ZERO, NOT_NEGATIVE, CheckedSettings, ranged
from xlmtrain.data.dataset import Dataset
from xlmtrain.diagnostics.plan import Cluster, Plan, describe, make_plan, table
from xlmtrain.errors import ConfigError
from xlmtrain.metrics.flops import GPUS, gpu_named

TABLE = [(name, count) for name in ("V100", "A100", "H100") for count in (1, 8, 64, 256)]


@dataclass
class PlanOptions(CheckedSettings):
    """The settings of this command; other arguments are those of xlmtrain train (see its --help)."""

    gpu: str | None = None
    """V100, A100, H100, H200 or another; a wrong name lists them all. null: a table of several clusters."""

    gpus: int = ranged(1, ABOVE_ZERO)
    """Number of GPUs."""

    per_host: int = ranged(8, ABOVE_ZERO)
    """GPUs of each host."""

    network: float = ranged(0.0, NOT_NEGATIVE)
    """Gb/s of each host's network; 0: as usual for such hosts."""

    vocab_size: int = ranged(0, NOT_NEGATIVE)
    """Entries of the vocabulary; 0: those of data.path."""

    tokens_per_gpu: int = ranged(0, NOT_NEGATIVE)
    """Tokens of a step on each GPU; 0: train.batch_tokens split across the GPUs, one sub-batch at least."""

    tokens: float = ranged(0.0, NOT_NEGATIVE)
    """Tokens of the whole run; 0: those of the settings."""

    price: float = ranged(0.0, NOT_NEGATIVE)
    """Price of a GPU for an hour, in any currency."""

    def problems(self) -> Iterator[str]:
        """Yield values that cannot be."""
        if self.gpu is not None and gpu_named(self.gpu) is None:
            yield f"gpu: {self.gpu}: known are {', '.join(gpu.name for gpu in GPUS)}"


def main(argv: list[str]) -> None:
    """Print the plan, or the table."""
    options, overrides = parse_args(PlanOptions, argv, more=True)
    config = compose("config", overrides)
    vocab_size = options.vocab_size or _vocab_size(config)
    if options.gpu is None:
        print(table([_plan(options, config, vocab_size, name, count) for name, count in TABLE]))
    else:
        print("\n".join(describe(_plan(options, config, vocab_size, options.gpu, options.gpus), options.price)))
    if "bt" in combined_data(config).weights:
        print("The time in which back-translation translates is not counted.")


def _vocab_size(config: Config) -> int:
    if not Path(config.data.path).is_dir():
        raise ConfigError(
            f"data.path={config.data.path} is not prepared yet; give the size of its vocabulary, vocab_size="
        )
    return len(Dataset(config.data.path).vocab)


def _plan(options: PlanOptions, config: Config, vocab_size: int, name: str, gpus: int) -> Plan:
    gpu = gpu_named(name)
    assert gpu is not None
    cluster = Cluster(gpu, gpus, options.per_host, options.network)
    return make_plan(config, vocab_size, cluster, options.tokens_per_gpu, options.tokens)
