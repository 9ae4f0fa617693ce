"""The time of a step on GPUs: arithmetic and memory traffic of one GPU, and communication.

The constants are efficiencies in practice, the same for all GPUs. They come from an estimate, not a measurement, of a
step of the released model's shape on an H200 (6 layers of 1024, 32,768 tokens, nothing compiled).
``benchmarks/plan.md`` compares the results with published speeds of other models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from xlmtrain.config.schema import ModelConfig, Sharding
from xlmtrain.metrics.flops import GpuSpec, flops_per_token

MATMUL_EFFICIENCY = 0.68
"""Share of the peak that matrix products reach."""
ATTENTION_EFFICIENCY = 0.25
"""Share of the peak that attention reaches."""
HBM_EFFICIENCY = 0.8
"""Share of the memory's bandwidth that is reached."""
ELEMENTWISE = 343
"""Bytes read and written per position, layer and unit of width by all other operations: dropout, norms, activation,
residuals, casts, one kernel after the other."""
CROSS_ENTROPY = 10
"""Bytes per logit."""
OPTIMIZER = 41
"""Bytes per parameter: Adam 28, the norm of the gradient and clipping 12, zeroing."""
HOST_OVERHEAD_SECONDS = 1e-3
"""Seconds of a step in which the GPU waits for the host."""
NETWORK_EFFICIENCY = 0.93
"""Share of the network's speed that a reduction reaches."""
BACKWARD = 2 / 3
"""Share of the computing that is the backward pass."""
BUCKET = 25 * 2**20 / 4
"""Gradients in a bucket of DistributedDataParallel; the last bucket of a backward pass is reduced after it."""


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
) -> StepTime:
    """Estimate a step of ``tokens`` tokens on each GPU, in ``micro_batches`` of sequences of ``length``.

    ``scored``: share of the tokens that are targets. ``gradient_bytes``: of one gradient during the reduction.
    Gradients are reduced during the last backward pass through the blocks. Those of token embeddings follow it: the
    rows of the tokens in the batch if they are tied to the output layer, else all. The communication of sharded weights
    overlaps with all of the computing.
    """
    gpu, width = cluster.gpu, model.dim
    bandwidth = HBM_EFFICIENCY * gpu.bandwidth
    attention = 12 * model.layers * width * length
    logits = scored * vocab_size
    matmul = flops_per_token(model, vocab_size, length, scored) - attention - 6 * logits * width
    output = 6 * logits * width / MATMUL_EFFICIENCY / gpu.flops + CROSS_ENTROPY * logits / bandwidth
    blocks = (matmul / MATMUL_EFFICIENCY + attention / ATTENTION_EFFICIENCY) / gpu.flops
    blocks += ELEMENTWISE * model.layers * width / bandwidth
    computing = tokens * (blocks + output)
    optimizer = OPTIMIZER * parameters / cluster.shards(sharding) / bandwidth + HOST_OVERHEAD_SECONDS
    if sharding is not Sharding.none:
        comm = micro_batches * cluster.sharding_seconds(4 * parameters, gradient_bytes * parameters, sharding)
        return StepTime(computing, optimizer, max(comm - computing, 0.0), comm)
    rows = touched_vocab_share(tokens / micro_batches * cluster.gpus, vocab_size) if model.tie_embeddings else 1.0
    late = cluster.all_reduce_seconds(gradient_bytes * rows * vocab_size * width)
    bucket = cluster.all_reduce_seconds(gradient_bytes * min(BUCKET, parameters - vocab_size * width))
    comm = cluster.all_reduce_seconds(gradient_bytes * parameters)
    overlap = BACKWARD * tokens * blocks / micro_batches
    return StepTime(computing, optimizer, late + max(comm - late - overlap, bucket), comm)
