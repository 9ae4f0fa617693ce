"""The product's own step."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from contest.saving import INTERVAL, measure_saving
from contest.turns import Turns
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.objective import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import disable_malloc_trim
from xlmtrain.train.step import TrainStep


class Loop:
    """Model, optimizer and step as train.py makes them."""

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        disable_malloc_trim()
        self.model = weights
        if config.train.compile:
            for block in self.model.encoder.blocks:
                block.compile()
        self.model.to(device)
        self._optimizer = make_optimizer(config.optim, self.model, device)
        alone = Distributed(0, 1, device)
        self._stepper = TrainStep(config, self.model, self._optimizer, config.train.precision, alone)

    def loss(self, batch: Batch) -> float:
        """See :class:`contest.worker.Trains`."""
        return float(self.model(batch)) / len(batch.targets)

    def train(self, turns: Turns) -> None:
        """See :class:`contest.worker.Trains`."""
        turns.watch(self.model, self._optimizer)
        for data in turns:
            losses = self._stepper(data, data.targets).losses
            turns.done(losses.sum() / sum(data.targets))

    def saving(self, saves: int) -> dict[str, Any]:
        """See :class:`contest.worker.Saves`. ``stalled``, ``share``: of the time and of the CPU time between two."""
        saving = measure_saving(self.model, self._optimizer, saves)
        return {**asdict(saving), "stalled": saving.stall / INTERVAL, "share": saving.cpu / INTERVAL}
