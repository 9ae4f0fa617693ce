"""The memory of a GPU that training needs, part by part.

Letters: P parameters, D width, L layers, V entries of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from xlmtrain.config.schema import ModelConfig
from xlmtrain.objective import LanguageModel

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
