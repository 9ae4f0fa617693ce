"""How long a step takes on GPUs: arithmetic and memory traffic of one GPU, and what its neighbours add.

The constants say how far one gets in practice, and are the same for all GPUs. They are those of an estimate, not of a
measurement, of a step of the released model's shape on an H200 (6 layers of 1024, 32,768 tokens, nothing compiled);
``benchmarks/plan.md`` has what they give for other models beside published speeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from xlmtrain.config.schema import ModelConfig, Sharding
from xlmtrain.metrics.flops import flops_per_token
from xlmtrain.metrics.gpus import Gpu

PRODUCTS = 0.68
"""Share of the peak that matrix products reach."""
ATTENTION = 0.25
"""Share of the peak that attention reaches."""
TRAFFIC = 0.8
"""Share of the memory's bandwidth that is reached."""
ELEMENTWISE = 343
"""Bytes read and written per position, layer and unit of width by all that is no product: dropout, norms, activation,
residuals, casts, one kernel after the other."""
CROSS_ENTROPY = 10
"""Bytes per logit."""
OPTIMIZER = 41
"""Bytes per parameter: Adam 28, the norm of the gradient and clipping 12, zeroing."""
LAUNCHES = 1e-3
"""Seconds of a step in which the GPU waits for the host."""
NETWORK = 0.93
"""Share of the network's speed that a reduction reaches."""
BACKWARD = 2 / 3
"""Share of the computing that is the backward pass."""
BUCKET = 25 * 2**20 / 4
"""Gradients that DistributedDataParallel sends at once: the last ones of a backward pass follow it."""


@dataclass(frozen=True)
class Cluster:
    """``gpus`` of a kind, up to ``per_host`` to a host, hosts joined by ``network`` Gb/s each, 0: as usual."""

    gpu: Gpu
    gpus: int
    per_host: int = 8
    network: float = 0.0

    @property
    def between_hosts(self) -> float:
        """Bytes/s that a host sends."""
        return NETWORK * (self.network or self.gpu.network) * 1e9 / 8

    def reduction_seconds(self, size: float) -> float:
        """To add up ``size`` bytes over all GPUs in a ring: each link carries 2 (n - 1) / n of them."""
        slowest = min(self.gpu.neighbours, self.between_hosts if self.gpus > self.per_host else math.inf)
        return 2 * (self.gpus - 1) / self.gpus * size / slowest

    def shards(self, sharding: Sharding) -> int:
        """Over how many GPUs the weights are shared out."""
        return {Sharding.none: 1, Sharding.full: self.gpus, Sharding.hybrid: min(self.gpus, self.per_host)}[sharding]

    def sharing_seconds(self, weights: float, gradients: float, sharding: Sharding) -> float:
        """To put together ``weights`` bytes twice, for the way forth and back, and to add up and share out
        ``gradients`` bytes: what shared weights need for every micro-batch."""
        count = self.shards(sharding)
        within = Cluster(self.gpu, count, self.per_host, self.network)
        hosts = Cluster(replace(self.gpu, neighbours=self.between_hosts), self.gpus // count)
        return within.reduction_seconds(2 * weights + gradients) / 2 + hosts.reduction_seconds(gradients)


def looked_up(tokens: float, vocab_size: int) -> float:
    """Share of the vocabulary's entries that so many tokens have among them, as the model sees them, masked.

    Counted on English and German text with a vocabulary of 60,562 and the released model's masks; this is within 0.02
    of the counts, from one sub-batch to 256 of them (``benchmarks/plan.md``).
    """
    return 1 - math.exp(-0.2 * (tokens / vocab_size) ** 0.68)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step: ``computing`` on each GPU, ``optimizer``, and ``waiting`` for gradients."""

    computing: float
    optimizer: float
    waiting: float
    reduction: float
    """Seconds of the reduction in all, most of them beside the computing."""

    @property
    def total(self) -> float:
        """Seconds."""
        return self.computing + self.optimizer + self.waiting

    @property
    def scaling(self) -> float:
        """Speed of each GPU against its speed alone."""
        return (self.computing + self.optimizer) / self.total


def step_time(
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
    """A step of ``tokens`` tokens on each GPU, in so many micro-batches of sequences of ``length``.

    ``scored``: share of the tokens to predict. ``gradient_bytes``: of one gradient on the wire. They are reduced during
    the last micro-batch's backward pass through the blocks, but for the rows of the token embeddings that were looked
    up, or all of them if they are no output layer; those follow it. Shared weights and their gradients go to and fro
    beside all of the computing.
    """
    gpu, width = cluster.gpu, model.dim
    attention = 12 * model.layers * width * length
    logits = scored * vocab_size
    products = flops_per_token(model, vocab_size, length, scored) - attention - 6 * logits * width
    output = 6 * logits * width / PRODUCTS / gpu.flops + CROSS_ENTROPY * logits / (TRAFFIC * gpu.bandwidth)
    blocks = (products / PRODUCTS + attention / ATTENTION) / gpu.flops
    blocks += ELEMENTWISE * model.layers * width / (TRAFFIC * gpu.bandwidth)
    computing = tokens * (blocks + output)
    optimizer = OPTIMIZER * parameters / cluster.shards(sharding) / (TRAFFIC * gpu.bandwidth) + LAUNCHES
    if sharding is not Sharding.none:
        reduction = micro_batches * cluster.sharing_seconds(4 * parameters, gradient_bytes * parameters, sharding)
        return StepTime(computing, optimizer, max(reduction - computing, 0.0), reduction)
    rows = looked_up(tokens / micro_batches * cluster.gpus, vocab_size) if model.tie_embeddings else 1.0
    late = cluster.reduction_seconds(gradient_bytes * rows * vocab_size * width)
    bucket = cluster.reduction_seconds(gradient_bytes * min(BUCKET, parameters - vocab_size * width))
    reduction = cluster.reduction_seconds(gradient_bytes * parameters)
    beside = BACKWARD * tokens * blocks / micro_batches
    return StepTime(computing, optimizer, late + max(reduction - late - beside, bucket), reduction)
