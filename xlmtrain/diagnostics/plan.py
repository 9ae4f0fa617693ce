"""A run on a cluster, before it is paid for: memory, time of a step, communication, days.

The efficiencies are what is reached in practice, the same for all GPUs. They come from an estimate, not a measurement,
of a step of the released model's shape on an H200 (6 layers of 1024, 32,768 tokens, nothing compiled).
``benchmarks/plan.md`` compares the results with published speeds of other models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from xlmtrain.config.model import ModelConfig
from xlmtrain.config.phases import phases_of
from xlmtrain.config.phases import total_tokens as total_tokens_of
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision, ReduceDtype, Sharding
from xlmtrain.diagnostics.memory import LANGUAGES, Memory, muon_shapes, parameter_count, phase_memory, target_share
from xlmtrain.metrics.flops import GpuSpec, flops_per_token, skipped_share
from xlmtrain.metrics.table import format_table

MATMUL_EFFICIENCY = 0.68  # share of the peak that matrix products reach
ATTENTION_EFFICIENCY = 0.25  # share of the peak that attention reaches
HBM_EFFICIENCY = 0.8  # share of the memory's bandwidth that is reached
NETWORK_EFFICIENCY = 0.93  # share of the network's speed that a reduction reaches
# Bytes read and written per position, layer and unit of width by all other operations: dropout, norms, activation,
# residuals, casts, one kernel after the other.
ELEMENTWISE_BYTES = 343
CROSS_ENTROPY_BYTES = 10  # bytes per logit
OPTIMIZER_BYTES = 41  # bytes per parameter: Adam 28, the norm of the gradient and clipping 12, zeroing
# Kernels that the host launches for a micro-batch, forward and backward: for each block, and for all else, optimizer
# included (counted in tests/train/test_launches.py). Compiled code launches fewer.
LAUNCHES_PER_BLOCK = 57
OTHER_LAUNCHES = 70
LAUNCH_SECONDS = 1e-5  # time of the host for a launch; PyTorch takes 5 to 25 us
HOST_OVERHEAD_SECONDS = 1e-3  # seconds of a step in which the GPU waits for the host
BACKWARD_SHARE = 2 / 3  # share of the computing that is the backward pass
# Gradients in a bucket of DistributedDataParallel; the last one is reduced after the backward pass.
BUCKET_GRADIENTS = 25 * 2**20 / 4


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
    ``exposed_comm`` that does not overlap with the computing. ``launching``: in which the host launches the kernels, in
    parallel with the computing, which takes no less."""

    launching: float
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


def orthogonalization_flops(shape: Sequence[int]) -> float:
    """Return the arithmetic of Muon's five Newton-Schulz iterations for a matrix of ``shape``.

    Every GPU does all of it. Each iteration is X X^T, its square, and their sum times X (Jordan et al. 2024), for X of
    ``small`` rows, in bfloat16: GPUs without it take longer than planned.
    """
    small, large = sorted(shape)
    return 5 * (4.0 * small**2 * large + 2.0 * small**3)


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
    skipped: float = 0.0,
    muon_flops: float = 0.0,
) -> StepTime:
    """Estimate a step of ``tokens`` tokens on each GPU, in ``micro_batches`` of sequences of ``length``.

    ``scored``: share of the tokens that are targets. ``translated``: of sources and their translations. ``skipped``: of
    those that the last block leaves out after its attention. ``gradient_bytes``: of one gradient during the reduction.
    ``muon_flops``: arithmetic of the optimizer.

    Gradients are reduced during the last backward pass through the blocks. Those of token embeddings follow it: the
    rows of the tokens in the batch if they are tied to the output layer, else all. The communication of sharded weights
    overlaps with all of the computing. A decoder's blocks are reckoned to launch as much as the encoder's.
    """
    gpu, width = cluster.gpu, model.dim
    bandwidth = HBM_EFFICIENCY * gpu.bandwidth
    attention = 12 * model.layers * width * length
    logits = scored * vocab_size
    matmul = flops_per_token(model, vocab_size, length, scored, translated, skipped) - attention - 6 * logits * width
    output = 6 * logits * width / MATMUL_EFFICIENCY / gpu.flops + CROSS_ENTROPY_BYTES * logits / bandwidth
    blocks = (matmul / MATMUL_EFFICIENCY + attention / ATTENTION_EFFICIENCY) / gpu.flops
    blocks += ELEMENTWISE_BYTES * model.layers * width / bandwidth
    launches = LAUNCHES_PER_BLOCK * model.layers * (2 if translated else 1) + OTHER_LAUNCHES
    launching = micro_batches * launches * LAUNCH_SECONDS
    computing = max(tokens * (blocks + output), launching)
    optimizer = OPTIMIZER_BYTES * parameters / cluster.shards(sharding) / bandwidth + HOST_OVERHEAD_SECONDS
    optimizer += muon_flops / MATMUL_EFFICIENCY / gpu.flops
    if sharding is not Sharding.none:
        comm = micro_batches * cluster.sharding_seconds(4 * parameters, gradient_bytes * parameters, sharding)
        return StepTime(launching, computing, optimizer, max(comm - computing, 0.0), comm)
    rows = touched_vocab_share(tokens / micro_batches * cluster.gpus, vocab_size) if model.tie_embeddings else 1.0
    late = cluster.all_reduce_seconds(gradient_bytes * rows * vocab_size * width)
    bucket = cluster.all_reduce_seconds(gradient_bytes * min(BUCKET_GRADIENTS, parameters - vocab_size * width))
    comm = cluster.all_reduce_seconds(gradient_bytes * parameters)
    overlap = BACKWARD_SHARE * tokens * blocks / micro_batches
    return StepTime(launching, computing, optimizer, late + max(comm - late - overlap, bucket), comm)


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
    phases, parameters = phases_of(config), parameter_count(config, vocab_size, LANGUAGES)
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
    muon = sum(map(orthogonalization_flops, muon_shapes(config, vocab_size)))
    skipped = skipped_share(scored, translated)
    time = estimate_step(*shape, micro_batches, cluster, gradient_bytes, sharding, translated, skipped, muon)
    memory = phase_memory(config, parameters, vocab_size, cluster.shards(sharding), tokens)
    speed = tokens * cluster.gpus / time.total
    flops = tokens * flops_per_token(model, vocab_size, length, scored, translated, skipped)
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
        f"step: {time.total * 1e3:.0f} ms: computing {time.computing * 1e3:.0f} (launching the kernels "
        f"{time.launching * 1e3:.0f}), optimizer {time.optimizer * 1e3:.0f}, "
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
