"""The product's own step."""

from __future__ import annotations

import torch

from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.data.loader import StepData
from xlmtrain.objective import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.memory import keep_freed_memory
from xlmtrain.train.step import Stepper

CPU = torch.device("cpu")


class Loop:
    """Optimizer and step as train.py makes them."""

    def __init__(self, config: Config, weights: LanguageModel) -> None:
        keep_freed_memory()
        self.model = weights
        self.optimizer = make_optimizer(config.optim, self.model, CPU)
        alone = Distributed(0, 1, CPU)
        self._stepper = Stepper(config, self.model, self.optimizer, config.train.precision, alone)

    def loss(self, batch: Batch) -> float:
        """See :class:`contest.worker.Trains`."""
        return float(self.model(batch)) / len(batch.targets)

    def step(self, data: StepData) -> float:
        """See :class:`contest.worker.Trains`."""
        return float(self._stepper(data, data.targets).losses.sum()) / sum(data.targets)
