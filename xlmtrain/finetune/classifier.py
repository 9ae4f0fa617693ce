"""A pretrained encoder with a head for a task: dropout and a linear map of the first hidden state, as in the paper, of
the mean of all, or of the first subword of each word.

Attention is bidirectional, also for a model pretrained with CLM, as in the original XLM.

Letters: B rows, T positions, D width, M targets, C outputs.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from xlmtrain.config.evaluate import Pooling
from xlmtrain.data.batch import Batch
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.sentence_embeddings import pooled
from xlmtrain.finetune.tasks import Task
from xlmtrain.interop.bundle import PretrainedBundle


class Classifier(nn.Module):
    """A copy of the encoder of ``saved`` with a new head for ``task``, initialized by torch's generator."""

    def __init__(self, saved: PretrainedBundle, task: Task[Any], dropout: float, pooling: Pooling) -> None:
        super().__init__()
        config = replace(saved.config, dropout=dropout, attention_dropout=dropout)
        # module() shares the memory of the weights
        self.encoder = copy.deepcopy(replace(saved, config=config).module().encoder)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(saved.config.dim, task.outputs)
        self.task, self.pooling = task, pooling

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return logits (M, C) in fp32."""
        hidden = self.encoder(batch.tokens, batch.positions, batch.languages, batch.lengths)  # (B, T, D)
        if self.task.per_token:
            states = hidden.flatten(0, 1)[batch.target_index]
        else:
            states = pooled(hidden, batch.lengths, self.pooling)
        logits: torch.Tensor = self.head(self.dropout(states))
        return logits.float()

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the task's loss () summed over the batch's targets (M, ...)."""
        return self.task.loss(self.logits(batch), batch.targets)

    def freeze_except(self, layers: list[int] | None) -> None:
        """Freeze all but the head and ``layers``: 0 is the embeddings, i the i-th block. None freezes nothing.

        Raises ConfigError for a layer that does not exist.
        """
        if layers is None:
            return
        blocks = self.encoder.blocks
        if not set(layers) <= set(range(len(blocks) + 1)):
            raise ConfigError(f"train.layers={layers}: the model has 0 (the embeddings) to {len(blocks)}")
        if 0 not in layers:
            self.encoder.requires_grad_(False)
        for number, block in enumerate(blocks, 1):
            block.requires_grad_(number in layers)
