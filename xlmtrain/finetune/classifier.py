"""A pretrained encoder with a classification head: dropout and a linear map on the first state, as in the paper, or on
the mean of all.

A state sees the whole sentence, also of a model that CLM trained to see what is before it, as in the ancestor.

Letters: B rows, T positions, D width, C labels.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.config.schema import Pooling
from xlmtrain.data.batch import Batch
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.sentence_embeddings import pooled
from xlmtrain.interop.bundle import PretrainedBundle


class Classifier(nn.Module):
    """The encoder of ``saved``, a copy, and a new head for so many ``labels``, started by torch's generator."""

    def __init__(self, saved: PretrainedBundle, labels: int, dropout: float, pooling: Pooling) -> None:
        super().__init__()
        wet = replace(saved.config, dropout=dropout, attention_dropout=dropout)
        self.encoder = copy.deepcopy(replace(saved, config=wet).module().encoder)  # a module shares its weights' memory
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(saved.config.dim, labels)
        self.pooling = pooling

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits (B, C) in fp32; the batch's targets are labels."""
        hidden = self.encoder(batch.tokens, batch.positions, batch.languages, batch.lengths)
        return self.head(self.dropout(pooled(hidden, batch.lengths, self.pooling))).float()

    def forward(self, batch: Batch) -> torch.Tensor:
        """Cross-entropy summed over the rows, in nats."""
        return F.cross_entropy(self.logits(batch), batch.targets, reduction="sum")

    def choose_layers(self, layers: list[int] | None) -> None:
        """Let only the head and these parts learn: 0 the embeddings, i the i-th block; None is all.

        Raises ConfigError for a layer that there is not.
        """
        encoder, last = self.encoder, len(self.encoder.blocks)
        chosen = set(range(last + 1) if layers is None else layers)
        if not chosen <= set(range(last + 1)):
            raise ConfigError(f"train.layers={layers}: the model has 0 (the embeddings) to {last}")
        for number, block in enumerate(encoder.blocks, 1):
            if number not in chosen:
                block.requires_grad_(False)
        if 0 not in chosen:
            for part in (
                encoder.token_embeddings,
                encoder.position_embeddings,
                encoder.language_embeddings,
                encoder.embedding_norm,
            ):
                if part is not None:
                    part.requires_grad_(False)
