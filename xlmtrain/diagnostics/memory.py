"""Memory of a run on each GPU, estimated before anything is allocated.

Letters: P parameters.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import torch

from xlmtrain.config.model import ModelConfig
from xlmtrain.config.optim import AverageKind, OptimizerName
from xlmtrain.config.phases import combined_data
from xlmtrain.config.schema import Config
from xlmtrain.errors import ConfigError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import build_model
from xlmtrain.optim.optimizer import muon_matrices

# Bytes that a block keeps for its backward pass, per position and unit of width, in half precision: inputs of
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

LANGUAGES = 2  # of a planned model; more or fewer hardly change its size


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
    muon: int = 0,
) -> Memory:
    """Estimate the memory for micro-batches of ``micro_batch`` positions with ``targets`` targets.

    ``parameters``: P. ``shards``: number of GPUs over which weights, gradients and optimizer state are sharded.
    ``translates``: half of the positions are sources, through the encoder, half are targets, through the decoder.
    ``muon``: weights that Muon trains, with one moment; Adam keeps two. The last block counts in full, though it keeps
    less where it computes the targets alone.
    """
    gathered = vocab_size * model.dim + 2 * model.block_weights  # embeddings, one block and the next one
    dropout = DROPOUT_MASK_BYTES if model.dropout else 0
    block = ACTIVATION_BYTES + dropout + translates * (CROSS_ATTENTION_BYTES + dropout / 2) / 2
    return Memory(
        weights=4 * parameters / shards,
        gradients=4 * parameters / shards,
        optimizer_state=(8 * parameters - 4 * muon) / shards,
        autocast_copies=2 * parameters if shards == 1 else 6 * gathered,
        activations=micro_batch * model.dim * (model.layers * block + 4 + 4),  # with the embeddings and their norm
        logits=targets * vocab_size * LOGIT_BYTES,
    )


def parameter_count(config: Config, vocab_size: int, languages: int) -> int:
    """Return P without allocating the model; with a decoder if an objective trains one."""
    return sum(parameter.numel() for parameter in _meta_model(config, vocab_size, languages).parameters())


def muon_shapes(config: Config, vocab_size: int) -> list[torch.Size]:
    """Return the shapes of the matrices that Muon trains, none with another optimizer. Allocates nothing."""
    if config.optim.name is not OptimizerName.muon:
        return []
    return [matrix.shape for matrix in muon_matrices(_meta_model(config, vocab_size, LANGUAGES))]


def _meta_model(config: Config, vocab_size: int, languages: int) -> LanguageModel:
    with torch.device("meta"):
        return build_model(config.model, combined_data(config), vocab_size, languages)


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
    muon = sum(map(math.prod, muon_shapes(config, vocab_size)))
    memory = estimate_memory(config.model, parameters, vocab_size, micro_batch, targets, shards, translates, muon)
    average = 0 if config.average.kind is AverageKind.none else 4 * parameters / shards
    return replace(memory, optimizer_state=memory.optimizer_state + average)


def target_share(config: Config) -> float:
    """Return the share of a micro-batch's positions that are targets: masked ones, all of CLM, half of translation."""
    data = config.data
    return config.mask.prob * data.share_of(("mlm", "tlm")) + data.share_of(("clm",)) + data.seq2seq_share / 2
