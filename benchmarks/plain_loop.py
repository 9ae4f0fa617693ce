"""A plain training loop: systems that use it differ in their models alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.worker import BatchFeed
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.runtime.precision import autocast

MeanLoss = Callable[[Any, Batch], torch.Tensor]
"""(model, batch) -> loss per target."""


class PlainLoop:
    """PyTorch's default AdamW, gradient clipping, and autocast for bf16."""

    def __init__(self, config: Config, model: nn.Module, mean_loss: MeanLoss, device: torch.device) -> None:
        self.model, self._mean_loss = model.to(device).train(), mean_loss
        self._called = torch.compile(self.model) if config.train.compile else self.model
        optim = config.optim
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), optim.lr, (optim.beta1, optim.beta2), optim.eps, optim.weight_decay
        )
        self._clip, self._precision, self._device = optim.clip_grad_norm, config.train.precision, device

    def loss(self, batch: Batch) -> float:
        return float(self._mean_loss(self.model, self.with_sources(batch)))

    def with_sources(self, batch: Batch) -> Batch:
        """Return the batch to train on, here as it is."""
        return batch

    def train(self, feed: BatchFeed) -> None:
        for data in feed:
            with autocast(self._precision, self._device):  # alone, as casts made without gradients are kept within it
                batch = self.with_sources(data.batches[0].to(self._device))
            with autocast(self._precision, self._device):
                loss = self._mean_loss(self._called, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
            self._optimizer.step()
            self._optimizer.zero_grad()
            feed.step_done(loss.detach())
