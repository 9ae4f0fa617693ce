"""The training step of this package."""

from __future__ import annotations

import torch

from benchmarks.worker import BatchFeed
from xlmtrain.config.schema import Config
from xlmtrain.data.batch import Batch
from xlmtrain.generate.back_translation import back_translate
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import disable_malloc_trim
from xlmtrain.train.parallel import compile_blocks, parallelize
from xlmtrain.train.step import TrainStep


class OurSystem:
    """Model, optimizer and step as xlmtrain train makes them."""

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        disable_malloc_trim(device)
        self.model, self._bt, self._device = weights, config.bt, device
        if config.train.compile:
            compile_blocks(self.model)
        distributed, precision = Distributed(0, 1, device), config.train.precision
        parallel = parallelize(self.model, config.train, precision, distributed)
        optimizer = make_optimizer(config.optim, self.model, device)
        self._step = TrainStep(config, parallel, optimizer, precision, distributed)

    def loss(self, batch: Batch) -> float:
        if batch.objective == "bt":
            assert isinstance(self.model, TranslationModel)
            batch = back_translate(self.model, batch, self._bt, 0, 0, self._device).to(self._device)
        return float(self.model(batch)) / len(batch.targets)

    def train(self, feed: BatchFeed) -> None:
        for data in feed:
            feed.step_done(self._step(data, data.targets).losses.sum() / sum(data.targets))
