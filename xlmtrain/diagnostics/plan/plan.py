"""A run on a cluster, before it is paid for: memory, time, communication, days.

Letters: P parameters, D width, L layers, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from xlmtrain.config.schema import Config, ModelConfig, Precision, ReduceDtype
from xlmtrain.diagnostics.plan.speed import Cluster, StepTime, estimate_step
from xlmtrain.metrics.flops import flops_per_token
from xlmtrain.metrics.table import format_table
from xlmtrain.model.language_model import LanguageModel

_LANGUAGES = 2
ACTIVATIONS = 36
"""Bytes that a block keeps for its backward pass, per position and unit of width, in half precision: inputs of the four
matrix products 2 + 2 + 2 + 8, queries, keys and values 6, input of the activation 8, of the norms 4 + 4 in fp32."""
DROPOUT = 2
"""Bytes of the masks of its two dropouts, likewise."""
LOGITS = 10
"""Bytes per logit at most: half precision, fp32, and fp32 log-probabilities; in the backward pass, the last with their
gradient and that in half precision."""
CUDA_CONTEXT = 1e9
"""Bytes of CUDA's context and the work spaces of its libraries."""
FRAGMENTATION = 0.05
"""Share that the allocator wastes."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU. ``autocast_copies``: weights in half precision during a micro-batch; with sharded weights,
    those that are all-gathered at a time."""

    weights: float
    gradients: float
    optimizer_state: float
    autocast_copies: float
    activations: float
    logits: float
    cuda_context: float = CUDA_CONTEXT

    @property
    def total(self) -> float:
        """Bytes with fragmentation."""
        parts = self.weights + self.gradients + self.optimizer_state + self.autocast_copies
        return (parts + self.activations + self.logits) * (1 + FRAGMENTATION) + self.cuda_context


def estimate_memory(
    model: ModelConfig, parameters: int, vocab_size: int, micro_batch: int, targets: float, shards: int = 1
) -> Memory:
    """Estimate the memory for micro-batches of ``micro_batch`` positions with ``targets`` targets.

    ``parameters``: P. ``shards``: number of GPUs over which weights, gradients and optimizer state are sharded.
    """
    gathered = vocab_size * model.dim + 2 * 12 * model.dim**2  # embeddings, one block and the next one
    block = ACTIVATIONS + (DROPOUT if model.dropout else 0)
    return Memory(
        weights=4 * parameters / shards,
        gradients=4 * parameters / shards,
        optimizer_state=8 * parameters / shards,
        autocast_copies=2 * parameters if shards == 1 else 6 * gathered,
        activations=micro_batch * model.dim * (model.layers * block + 4 + 4),  # with the embeddings and their norm
        logits=targets * vocab_size * LOGITS,
    )


def parameter_count(model: ModelConfig, vocab_size: int, languages: int) -> int:
    """Return P without allocating the model."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LanguageModel(model, vocab_size, languages).parameters())


@dataclass(frozen=True)
class Plan:
    """An estimate. ``tokens``: of a step on one GPU, computed ``micro_batch`` tokens per micro-batch.

    ``total_tokens``: of the run. ``flops``: useful floating-point operations per token, without recomputing or padding.
    """

    cluster: Cluster
    parameters: int
    tokens: int
    micro_batch: int
    total_tokens: float
    flops: float
    memory: Memory
    time: StepTime

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all GPUs together."""
        return self.tokens * self.cluster.gpus / self.time.total

    @property
    def utilization(self) -> float:
        """Useful arithmetic as a share of the data sheet's peak (MFU)."""
        return self.tokens * self.flops / self.time.total / self.cluster.gpu.flops

    @property
    def days(self) -> float:
        """Days of training, without evaluation and checkpoints."""
        return self.total_tokens / self.tokens_per_second / 86400

    @property
    def gpu_hours(self) -> float:
        """Hours of all GPUs, added up."""
        return self.days * 24 * self.cluster.gpus

    @property
    def fits(self) -> bool:
        """True if the memory suffices."""
        return self.memory.total <= self.cluster.gpu.memory


def make_plan(config: Config, vocab_size: int, cluster: Cluster, tokens: int, total_tokens: float) -> Plan:
    """Return the plan for a run with batches of ``tokens`` tokens on each GPU, in half precision.

    With ``train.precision=fp32`` only the reduction of gradients is planned in fp32.
    """
    parameters = parameter_count(config.model, vocab_size, _LANGUAGES)
    micro_batch = min(config.train.micro_batch_tokens or config.data.sub_batch_tokens, tokens)
    length, scored, sharding = config.data.sequence_length, config.mask.prob, config.train.sharding
    half = config.train.reduce_dtype is ReduceDtype.half and config.train.precision is not Precision.fp32
    micro_batches, gradient_bytes = -(-tokens // micro_batch), 2 if half else 4
    time = estimate_step(
        config.model, parameters, vocab_size, length, scored, tokens, micro_batches, cluster, gradient_bytes, sharding
    )
    targets, shards = micro_batch * scored, cluster.shards(sharding)
    memory = estimate_memory(config.model, parameters, vocab_size, micro_batch, targets, shards)
    flops = flops_per_token(config.model, vocab_size, length, scored)
    return Plan(cluster, parameters, tokens, micro_batch, total_tokens, flops, memory, time)


def describe(plan: Plan, price: float) -> list[str]:
    """Return the plan in lines; ``price`` of a GPU for an hour, 0 if it is not known."""
    cluster, memory, time = plan.cluster, plan.memory, plan.time
    parts = {part.name.replace("_", " "): getattr(memory, part.name) for part in fields(memory)}
    verdict = "fits" if plan.fits else "does not fit; take a smaller train.micro_batch_tokens"
    cost = f", {plan.gpu_hours * price:,.0f} at {price:g} an hour" if price else ""
    return [
        f"{cluster.gpus} x {cluster.gpu.name}, {plan.parameters:,} parameters, {plan.tokens:,} tokens a step on each, "
        f"{plan.micro_batch:,} per micro-batch",
        f"memory: {memory.total / 1e9:.1f} of {cluster.gpu.memory / 1e9:.0f} GB ({verdict}): "
        + ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items()),
        f"step: {time.total * 1e3:.0f} ms: computing {time.computing * 1e3:.0f}, optimizer {time.optimizer * 1e3:.0f}, "
        f"exposed communication {time.exposed_comm * 1e3:.0f} of {time.comm * 1e3:.0f}",
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
            f"{plan.time.exposed_comm / plan.time.total:.0%}",
            f"{plan.time.scaling:.0%}",
            f"{plan.tokens_per_second / 1e3:,.0f}k",
            f"{plan.days:,.2f}",
            f"{plan.gpu_hours:,.0f}",
        )
        for plan in plans
    ]
    header = ("GPUs", "memory of each", "step", "exposed comm.", "scaling", "tokens/s", "days", "GPU hours")
    return format_table(rows, header, "markdown")
