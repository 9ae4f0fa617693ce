"""A pretrained encoder with a head that learns a task."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from xlmtrain.config.evaluate import Pooling
from xlmtrain.data.batch import Batch
from xlmtrain.errors import ConfigError
from xlmtrain.finetune.tasks import Task
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.model.classifier import Classifier


class TaskModel(Classifier):
    """A copy of the encoder of ``saved`` with a new head for ``task``, initialized by torch's generator.

    Head layers that the prediction head of the pretrained model has, too, those of ModernBERT, start as there.
    """

    def __init__(self, saved: PretrainedBundle, task: Task[Any], dropout: float, pooling: Pooling) -> None:
        config = replace(saved.config, dropout=dropout, attention_dropout=dropout)
        # module() shares the memory of the weights
        encoder = copy.deepcopy(replace(saved, config=config).module().encoder)
        super().__init__(encoder, task.outputs, task.per_token, pooling)
        if config.parts.classifier.norm:
            weights = {name.removeprefix("head.transform."): weight for name, weight in saved.weights.items()}
            own = [name for name in self.head.state_dict() if not name.startswith("out.")]
            self.head.load_state_dict({name: weights[name].clone() for name in own}, strict=False)
        self.task = task

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
