"""A run on a cluster, before it is paid for: memory, time of a step, communication, days.

The efficiencies are what is reached in practice, the same for all GPUs. They come from an estimate, not a measurement,
of a step of the released model's shape on an H200 (6 layers of 1024, 32,768 tokens, nothing compiled).
``benchmarks/plan.md`` compares the results with published speeds of other models.

Letters: P parameters, D width, L layers, V entries of the vocabulary.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from xlmtrain.config.model import ModelConfig
from xlmtrain.config.optim import AverageKind
from xlmtrain.config.phases import combined_data, phases_of
from xlmtrain.config.phases import total_tokens as total_tokens_of
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision, ReduceDtype, Sharding
from xlmtrain.errors import ConfigError
from xlmtrain.metrics.flops import GpuSpec, flops_per_token
from xlmtrain.metrics.table import format_table
from xlmtrain.model.translation_model import build_model

# Memory: bytes that a block keeps for its backward pass, per position and unit of width, in half precision: inputs of
# the four matrix products 2 + 2 + 2 + 8, queries, keys and values 6, input of the activation 8, of the norms 4 + 4.
ACTIVATION_BYTES = 36
# Likewise for attention to the source, per position of a translation and of its source: inputs of the three products
# 2 + 2 + 2, queries 2, keys and values 4, input of the norm 4.
CROSS_ATTENTION_BYTES = 16
DROPOUT_MASK_BYTES = 2  # bytes of the masks of a block's two dropouts, likewise
# Peak bytes per logit. Forward: 2 (half precision) + 4 (fp32) + 4 (log-probabilities). Backward: 4 (log-probabilities)
# + 4 (gradient) + 2 (gradient in half precision).
LOGIT_BYTES = 10
LEAST_STATE_BYTES = 12  # of a weight, its gradient and the one moment that Muon keeps, in fp32
CUDA_CONTEXT = 1e9  # bytes of CUDA's context and the work spaces of its libraries
FRAGMENTATION = 0.05  # share that the allocator wastes

# Time.
MATMUL_EFFICIENCY = 0.68  # share of the peak that matrix products reach
ATTENTION_EFFICIENCY = 0.25  # share of the peak that attention reaches
HBM_EFFICIENCY = 0.8  # share of the memory's bandwidth that is reached
NETWORK_EFFICIENCY = 0.93  # share of the network's speed that a reduction reaches
# Bytes read and written per position, layer and unit of width by all other operations: dropout, norms, activation,
# residuals, casts, one kernel after the other.
ELEMENTWISE_BYTES = 343
CROSS_ENTROPY_BYTES = 10  # bytes per logit
OPTIMIZER_BYTES = 41  # bytes per parameter: Adam 28, the norm of the gradient and clipping 12, zeroing
HOST_OVERHEAD_SECONDS = 1e-3  # seconds of a step in which the GPU waits for the host
BACKWARD_SHARE = 2 / 3  # share of the computing that is the backward pass
# Gradients in a bucket of DistributedDataParallel; the last one is reduced after the backward pass.
BUCKET_GRADIENTS = 25 * 2**20 / 4

_LANGUAGES = 2


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
    model: ModelConfig,
    parameters: int,
    vocab_size: int,
    micro_batch: int,
    targets: float,
    shards: int = 1,
    translates: bool = False,
) -> Memory:
    """Estimate the memory for micro-batches of ``micro_batch`` positions with ``targets`` targets.

    ``parameters``: P. ``shards``: number of GPUs over which weights, gradients and optimizer state are sharded.
    ``translates``: half of the positions are sources, through the encoder, half are targets, through the decoder.
    """
    gathered = vocab_size * model.dim + 2 * model.block_weights  # embeddings, one block and the next one
    dropout = DROPOUT_MASK_BYTES if model.dropout else 0
    block = ACTIVATION_BYTES + dropout + translates * (CROSS_ATTENTION_BYTES + dropout / 2) / 2
    return Memory(
        weights=4 * parameters / shards,
        gradients=4 * parameters / shards,
        optimizer_state=8 * parameters / shards,
        autocast_copies=2 * parameters if shards == 1 else 6 * gathered,
        activations=micro_batch * model.dim * (model.layers * block + 4 + 4),  # with the embeddings and their norm
        logits=targets * vocab_size * LOGIT_BYTES,
    )


def parameter_count(config: Config, vocab_size: int, languages: int) -> int:
    """Return P without allocating the model; with a decoder if an objective trains one."""
    with torch.device("meta"):
        model = build_model(config.model, combined_data(config), vocab_size, languages)
    return sum(parameter.numel() for parameter in model.parameters())


def check_model_size(config: Config, vocab_size: int, memory: int, shards: int) -> None:
    """Raise ConfigError if ``memory`` bytes cannot hold weights, gradient and optimizer state. Allocates nothing.

    ``memory``: of each of ``shards`` devices that share them.
    """
    model, sides = config.model, 1 + combined_data(config).needs_decoder
    tables = 1 if model.share_encoder_decoder_embeddings else sides
    weights = tables * vocab_size * model.dim + sides * model.layers * model.block_weights
    needed = LEAST_STATE_BYTES * weights / shards
    if needed > memory:
        size = f"model.dim={model.dim} and model.layers={model.layers} with a vocabulary of {vocab_size:,}"
        state = f"with gradient and optimizer state {needed / 1e9:,.1f} GB on each of {shards} device(s)"
        advice = f"{memory / 1e9:,.1f} GB are there; take a smaller model, or more GPUs with train.sharding=full"
        raise ConfigError(f"{size}: at least {weights / 1e9:,.1f} billion weights, {state}, and {advice}")


def phase_memory(config: Config, parameters: int, vocab_size: int, shards: int, tokens: int | None = None) -> Memory:
    """Estimate the memory of one phase with the settings ``config``; ``tokens``: of a smaller batch on each GPU."""
    micro_batch = min(config.micro_batch_tokens, tokens or sys.maxsize)
    targets, translates = micro_batch * target_share(config), config.data.needs_decoder
    memory = estimate_memory(config.model, parameters, vocab_size, micro_batch, targets, shards, translates)
    average = 0 if config.average.kind is AverageKind.none else 4 * parameters / shards
    return replace(memory, optimizer_state=memory.optimizer_state + average)


def target_share(config: Config) -> float:
    """Return the share of a micro-batch's positions that are targets: masked ones, or the translations, a half."""
    translated = config.data.seq2seq_share
    return (1 - translated) * config.mask.prob + translated / 2


@dataclass(frozen=True)
class Cluster:
    """``gpus`` of a kind, up to ``per_host`` to a host; ``network``: Gb/s of each host, 0 for the usual one."""

    gpu: GpuSpec
    gpus: int
    per_host: int = 8
    network: float = 0.0

    @property
    def host_bandwidth(self) -> float:
        """Bytes/s that a host sends to others."""
        return NETWORK_EFFICIENCY * (self.network or self.gpu.network) * 1e9 / 8

    def all_reduce_seconds(self, size: float) -> float:
        """Return the time to add up ``size`` bytes over all GPUs in a ring: each link carries 2 (n - 1) / n of them."""
        slowest = min(self.gpu.peer_bandwidth, self.host_bandwidth if self.gpus > self.per_host else math.inf)
        return 2 * (self.gpus - 1) / self.gpus * size / slowest

    def shards(self, sharding: Sharding) -> int:
        """Return the number of GPUs that the weights are sharded across."""
        return {Sharding.none: 1, Sharding.full: self.gpus, Sharding.hybrid: min(self.gpus, self.per_host)}[sharding]

    def sharding_seconds(self, weights: float, gradients: float, sharding: Sharding) -> float:
        """Return the communication of a micro-batch with sharded weights.

        ``weights`` bytes are all-gathered twice, for forward and backward, and ``gradients`` bytes reduce-scattered.
        """
        count = self.shards(sharding)
        within = Cluster(self.gpu, count, self.per_host, self.network)
        hosts = Cluster(replace(self.gpu, peer_bandwidth=self.host_bandwidth), self.gpus // count)
        return within.all_reduce_seconds(2 * weights + gradients) / 2 + hosts.all_reduce_seconds(gradients)


def touched_vocab_share(tokens: float, vocab_size: int) -> float:
    """Return the share of the vocabulary that occurs among ``tokens`` masked tokens.

    Fitted to counts on English and German text with a vocabulary of 60,562 and the released model's masks, within 0.02
    from 8,192 tokens to 256 times as many (``benchmarks/plan.md``).
    """
    return 1 - math.exp(-0.2 * (tokens / vocab_size) ** 0.68)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step: ``computing`` and ``optimizer`` on each GPU, and communication: ``comm`` in all,
    ``exposed_comm`` that does not overlap with the computing."""

    computing: float
    optimizer: float
    exposed_comm: float
    comm: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.computing + self.optimizer + self.exposed_comm

    @property
    def scaling(self) -> float:
        """Speed of each GPU relative to its speed without others."""
        return (self.computing + self.optimizer) / self.total


def estimate_step(
    model: ModelConfig,
    parameters: int,
    vocab_size: int,
    length: int,
    scored: float,
    tokens: int,
    micro_batches: int,
    cluster: Cluster,
    gradient_bytes: int = 4,
    sharding: Sharding = Sharding.none,
    translated: float = 0.0,
) -> StepTime:
    """Estimate a step of ``tokens`` tokens on each GPU, in ``micro_batches`` of sequences of ``length``.

    ``scored``: share of the tokens that are targets. ``translated``: of sources and their translations.
    ``gradient_bytes``: of one gradient during the reduction. Gradients are reduced during the last backward pass
    through the blocks. Those of token embeddings follow it: the rows of the tokens in the batch if they are tied to the
    output layer, else all. The communication of sharded weights overlaps with all of the computing.
    """
    gpu, width = cluster.gpu, model.dim
    bandwidth = HBM_EFFICIENCY * gpu.bandwidth
    attention = 12 * model.layers * width * length
    logits = scored * vocab_size
    matmul = flops_per_token(model, vocab_size, length, scored, translated) - attention - 6 * logits * width
    output = 6 * logits * width / MATMUL_EFFICIENCY / gpu.flops + CROSS_ENTROPY_BYTES * logits / bandwidth
    blocks = (matmul / MATMUL_EFFICIENCY + attention / ATTENTION_EFFICIENCY) / gpu.flops
    blocks += ELEMENTWISE_BYTES * model.layers * width / bandwidth
    computing = tokens * (blocks + output)
    optimizer = OPTIMIZER_BYTES * parameters / cluster.shards(sharding) / bandwidth + HOST_OVERHEAD_SECONDS
    if sharding is not Sharding.none:
        comm = micro_batches * cluster.sharding_seconds(4 * parameters, gradient_bytes * parameters, sharding)
        return StepTime(computing, optimizer, max(comm - computing, 0.0), comm)
    rows = touched_vocab_share(tokens / micro_batches * cluster.gpus, vocab_size) if model.tie_embeddings else 1.0
    late = cluster.all_reduce_seconds(gradient_bytes * rows * vocab_size * width)
    bucket = cluster.all_reduce_seconds(gradient_bytes * min(BUCKET_GRADIENTS, parameters - vocab_size * width))
    comm = cluster.all_reduce_seconds(gradient_bytes * parameters)
    overlap = BACKWARD_SHARE * tokens * blocks / micro_batches
    return StepTime(computing, optimizer, late + max(comm - late - overlap, bucket), comm)


@dataclass(frozen=True)
class Plan:
    """An estimate. ``tokens``: of a step on one GPU, computed ``micro_batch`` tokens per micro-batch.

    ``total_tokens``: of the run. ``tokens_per_second``: of all GPUs together. ``utilization``: useful arithmetic as a
    share of the data sheet's peak (MFU). ``days``: of training, without evaluation and checkpoints.
    """

    cluster: Cluster
    parameters: int
    tokens: int
    micro_batch: int
    total_tokens: float
    memory: Memory
    time: StepTime
    tokens_per_second: float
    utilization: float
    days: float

    @property
    def gpu_hours(self) -> float:
        """Hours of all GPUs, added up."""
        return self.days * 24 * self.cluster.gpus


def make_plan(config: Config, vocab_size: int, cluster: Cluster, tokens: int = 0, total_tokens: float = 0.0) -> Plan:
    """Return the plan for a run: of its phases the one that takes most memory, and the time of all.

    ``tokens``: of a batch on each GPU; 0: ``train.batch_tokens`` divided among them, one sub-batch at least.
    ``total_tokens``: of the run; 0: those of the settings.
    """
    phases, parameters = phases_of(config), parameter_count(config, vocab_size, _LANGUAGES)
    scale, plans = total_tokens / total_tokens_of(phases) if total_tokens else 1.0, []
    for phase in phases:
        data, train = phase.settings.data, phase.settings.train
        share = tokens or max(train.batch_tokens // cluster.gpus, data.sub_batch_tokens)
        own = float(phase.span.steps * train.batch_tokens)
        plans.append(_plan_phase(phase.settings, parameters, vocab_size, cluster, share, own * scale))
    total, days = sum(plan.total_tokens for plan in plans), sum(plan.days for plan in plans)
    largest = max(plans, key=lambda plan: plan.memory.total)
    utilization = sum(plan.utilization * plan.days for plan in plans) / days
    speed = total / days / 86400
    return replace(largest, total_tokens=total, tokens_per_second=speed, utilization=utilization, days=days)


def _plan_phase(
    config: Config, parameters: int, vocab_size: int, cluster: Cluster, tokens: int, total_tokens: float
) -> Plan:
    """Return the plan for ``total_tokens`` tokens in batches of ``tokens`` on each GPU, in half precision.

    With ``train.precision=fp32`` only the reduction of gradients is planned in fp32. Generating, which back-translation
    does before it trains, is not in the times.
    """
    model, train = config.model, config.train
    micro_batch = min(config.micro_batch_tokens, tokens)
    length, scored, sharding = config.data.sequence_length, target_share(config), train.sharding
    translated = config.data.seq2seq_share
    half = train.reduce_dtype is ReduceDtype.half and train.precision is not Precision.fp32
    micro_batches, gradient_bytes = -(-tokens // micro_batch), 2 if half else 4
    shape = (model, parameters, vocab_size, length, scored, tokens)
    time = estimate_step(*shape, micro_batches, cluster, gradient_bytes, sharding, translated)
    memory = phase_memory(config, parameters, vocab_size, cluster.shards(sharding), tokens)
    speed = tokens * cluster.gpus / time.total
    flops = tokens * flops_per_token(model, vocab_size, length, scored, translated)
    utilization = flops / time.total / cluster.gpu.flops
    days = total_tokens / speed / 86400
    return Plan(cluster, parameters, tokens, micro_batch, total_tokens, memory, time, speed, utilization, days)


def describe(plan: Plan, price: float) -> list[str]:
    """Return the plan in lines; ``price`` of a GPU for an hour, 0 if it is not known."""
    cluster, memory, time = plan.cluster, plan.memory, plan.time
    parts = [f"{part.name.replace('_', ' ')} {getattr(memory, part.name) / 1e9:.1f}" for part in fields(memory)]
    fits = memory.total <= cluster.gpu.memory
    verdict = "fits" if fits else "does not fit; take a smaller train.micro_batch_tokens"
    cost = f", {plan.gpu_hours * price:,.0f} at {price:g} an hour" if price else ""
    return [
        f"{cluster.gpus} x {cluster.gpu.name}, {plan.parameters:,} parameters, {plan.tokens:,} tokens a step on each, "
        f"{plan.micro_batch:,} per micro-batch",
        f"memory: {memory.total / 1e9:.1f} of {cluster.gpu.memory / 1e9:.0f} GB ({verdict}): {', '.join(parts)}",
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
