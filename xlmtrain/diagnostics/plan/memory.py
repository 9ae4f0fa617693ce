"""How much memory a GPU needs for training, part by part.

Letters: P parameters, D width, L layers, V entries of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlmtrain.config.schema import ModelConfig

ACTIVATIONS = 36
"""Bytes that a block keeps for its backward pass, per position and unit of width, in half precision: inputs of the four
matrix products 2 + 2 + 2 + 8, queries, keys and values 6, input of the activation 8, of the norms 4 + 4 in fp32."""
DROPOUT = 2
"""The masks of its two dropouts, a byte each."""
LOGITS = 10
"""Bytes per logit at most: half precision, fp32, and fp32 logarithms of probabilities; or, on the way back, the last
with its gradient and that in half precision."""
LIBRARIES = 1e9
"""CUDA's context, and the work spaces of its libraries."""
SLACK = 0.05
"""Share that the allocator's pieces waste."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: float
    gradients: float
    moments: float
    copies: float
    """Of the weights in half precision, while a micro-batch is computed; of shared weights, those that are together."""
    activations: float
    logits: float
    libraries: float = LIBRARIES

    @property
    def total(self) -> float:
        """With what the allocator wastes."""
        parts = self.weights + self.gradients + self.moments + self.copies + self.activations + self.logits
        return parts * (1 + SLACK) + self.libraries


def memory_of(
    model: ModelConfig, parameters: int, vocab_size: int, micro_batch: int, targets: float, shards: int = 1
) -> Memory:
    """What training with micro-batches of ``micro_batch`` positions, ``targets`` of them to predict, needs.

    ``parameters``: P. ``shards``: over how many GPUs weights, gradients and moments are shared out.
    """
    together = vocab_size * model.dim + 2 * 12 * model.dim**2  # embeddings, a block and the one put together ahead
    kept = model.layers * (ACTIVATIONS + (DROPOUT if model.dropout else 0)) + 4 + 4  # and the embeddings and their norm
    return Memory(
        weights=4 * parameters / shards,
        gradients=4 * parameters / shards,
        moments=8 * parameters / shards,
        copies=2 * parameters if shards == 1 else 6 * together,
        activations=micro_batch * model.dim * kept,
        logits=targets * vocab_size * LOGITS,
    )
