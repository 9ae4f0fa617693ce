"""A run on a cluster, before it is paid for: memory, time, communication, days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from xlmtrain.config.schema import Config, Precision, ReduceDtype
from xlmtrain.diagnostics.plan.memory import Memory, memory_of
from xlmtrain.diagnostics.plan.speed import Cluster, StepTime, step_time
from xlmtrain.metrics.flops import flops_per_token
from xlmtrain.metrics.table import format_table
from xlmtrain.model.language_model import LanguageModel

LANGUAGES = 2


@dataclass(frozen=True)
class Plan:
    """``tokens``: of a step on one GPU, ``micro_batch`` at once; ``total_tokens``: of the run; ``useful``:
    floating-point operations per token, without recomputing or padding."""

    cluster: Cluster
    parameters: int
    tokens: int
    micro_batch: int
    total_tokens: float
    useful: float
    memory: Memory
    time: StepTime

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs together."""
        return self.tokens * self.cluster.gpus / self.time.total

    @property
    def utilization(self) -> float:
        """Useful arithmetic against the data sheet's peak (MFU)."""
        return self.tokens * self.useful / self.time.total / self.cluster.gpu.flops

    @property
    def days(self) -> float:
        """Until the run's end, evaluation and checkpoints left out."""
        return self.total_tokens / self.tokens_per_second / 86400

    @property
    def gpu_hours(self) -> float:
        """The same over all GPUs."""
        return self.days * 24 * self.cluster.gpus

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return self.memory.total <= self.cluster.gpu.memory


def make_plan(config: Config, vocab_size: int, cluster: Cluster, tokens: int, total_tokens: float) -> Plan:
    """The plan for the settings of a run, whose batch is ``tokens`` on each GPU.

    Half precision is taken for granted, as everywhere on GPUs unless ``train.precision=fp32``.
    """
    with torch.device("meta"):
        model = LanguageModel(config.model, vocab_size, LANGUAGES)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    micro_batch = min(config.train.micro_batch_tokens or config.data.sub_batch_tokens, tokens)
    length, scored = config.data.sequence_length, config.mask.prob
    half = config.train.reduce_dtype is ReduceDtype.half and config.train.precision is not Precision.fp32
    time = step_time(
        config.model,
        parameters,
        vocab_size,
        length,
        scored,
        tokens,
        -(-tokens // micro_batch),
        cluster,
        2 if half else 4,
        config.train.sharding,
    )
    shards = cluster.shards(config.train.sharding)
    memory = memory_of(config.model, parameters, vocab_size, micro_batch, micro_batch * scored, shards)
    useful = flops_per_token(config.model, vocab_size, length, scored)
    return Plan(cluster, parameters, tokens, micro_batch, total_tokens, useful, memory, time)


def describe(plan: Plan, price: float) -> list[str]:
    """The plan in lines; ``price`` of a GPU for an hour, 0 if it is not known."""
    cluster, memory, time = plan.cluster, plan.memory, plan.time
    parts = ("weights", "gradients", "moments", "copies", "activations", "logits", "libraries")
    verdict = "fits" if plan.fits else "does not fit; take a smaller train.micro_batch_tokens"
    cost = f", {plan.gpu_hours * price:,.0f} at {price:g} an hour" if price else ""
    return [
        f"{cluster.gpus} x {cluster.gpu.name}, {plan.parameters:,} parameters, {plan.tokens:,} tokens a step on each, "
        f"{plan.micro_batch:,} at once",
        f"memory: {memory.total / 1e9:.1f} of {cluster.gpu.memory / 1e9:.0f} GB ({verdict}): "
        + ", ".join(f"{part} {getattr(memory, part) / 1e9:.1f}" for part in parts),
        f"step: {time.total * 1e3:.0f} ms: computing {time.computing * 1e3:.0f}, optimizer {time.optimizer * 1e3:.0f}, "
        f"waiting for others {time.waiting * 1e3:.0f} (what goes between them takes {time.reduction * 1e3:.0f})",
        f"speed: {plan.tokens_per_second:,.0f} tokens/s, {plan.utilization:.0%} of the peak, "
        f"{time.scaling:.0%} of {cluster.gpus} times one GPU's",
        f"{plan.total_tokens / 1e9:,.1f} billion tokens: {plan.days:,.2f} days, {plan.gpu_hours:,.0f} GPU hours{cost}",
    ]


def table(plans: Sequence[Plan]) -> str:
    """Return the plans as a table in Markdown."""
    rows = [
        (
            f"{plan.cluster.gpus} x {plan.cluster.gpu.name}",
            f"{plan.memory.total / 1e9:.0f} GB",
            f"{plan.time.total * 1e3:,.0f} ms",
            f"{plan.time.waiting / plan.time.total:.0%}",
            f"{plan.time.scaling:.0%}",
            f"{plan.tokens_per_second / 1e3:,.0f}k",
            f"{plan.days:,.2f}",
            f"{plan.gpu_hours:,.0f}",
        )
        for plan in plans
    ]
    header = ("GPUs", "memory of each", "step", "waiting", "scaling", "tokens/s", "days", "GPU hours")
    return format_table(rows, header, "markdown")
