"""An encoder with a classification head, in the shape of transformers' class of its family.

Attention is bidirectional, also for a model pretrained with CLM, as in the original XLM.

Letters: B rows, T positions, D width, M targets, C outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.model import ModelConfig
from xlmtrain.model.block import make_activation, make_norm
from xlmtrain.model.encoder import Encoder

if TYPE_CHECKING:
    from xlmtrain.data.batch import Batch


class ClassificationHead(nn.Module):
    """Dropout and a linear map of hidden states, after the layers that the family has before them.

    ``of_words``: of the states of words, not of a pooled state. Initialized by torch's generator.
    """

    def __init__(self, config: ModelConfig, outputs: int, of_words: bool) -> None:
        super().__init__()
        parts = config.parts.classifier
        dense = parts.dense and (parts.of_words or not of_words)
        self.first_dropout = nn.Dropout(config.dropout) if dense and parts.dropout_first else nn.Identity()
        self.dense = nn.Linear(config.dim, config.dim, bias=config.parts.biases) if dense else nn.Identity()
        activation = make_activation(config.activation) if parts.norm else nn.Tanh()
        self.activation = activation if dense else nn.Identity()
        self.norm = make_norm(config) if dense and parts.norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.dim, outputs)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(M, D) -> (M, C)."""
        states = self.norm(self.activation(self.dense(self.first_dropout(states))))
        logits: torch.Tensor = self.out(self.dropout(states))
        return logits


class Classifier(nn.Module):
    """``encoder`` with a new head of C = ``outputs``, for words, or for texts pooled by ``pooling``."""

    def __init__(self, encoder: Encoder, outputs: int, of_words: bool, pooling: Pooling) -> None:
        super().__init__()
        self.encoder, self.of_words, self.pooling = encoder, of_words, pooling
        self.head = ClassificationHead(encoder.config, outputs, of_words)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return logits (M, C) in fp32: one for each text, or one for each of the batch's targets."""
        rows, length = batch.tokens.shape
        at = batch.target_index if self.of_words else None
        if at is None and self.pooling is Pooling.first:
            at = torch.arange(0, rows * length, length, device=batch.tokens.device)
        inputs = (batch.tokens, batch.positions, batch.languages, batch.lengths)
        states = self.encoder(*inputs, token_types=batch.token_types, at=at)  # (M, D), or (B, T, D) to take the mean of
        return self.head(pooled(states, batch.lengths, self.pooling) if at is None else states).float()


def pooled(states: torch.Tensor, lengths: torch.Tensor | None, pooling: Pooling) -> torch.Tensor:
    """Pool states (B, T, D), which are zero at padding, to (B, D); ``lengths`` (B,), None without padding."""
    if pooling is Pooling.first:
        return states[:, 0]
    if lengths is None:
        return states.mean(dim=1)
    return states.sum(dim=1) / lengths.to(states)[:, None]
