"""transformers' Trainer around its model: its own loop, data loader, clipping, optimizer and autocast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from benchmarks.hf_loop import make_hf_inputs, make_hf_model
from benchmarks.worker import BatchFeed
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch
from xlmtrain.model.language_model import LanguageModel


class HfTrainerSystem:
    """``Trainer.train`` with its defaults, except for no logging, no saving, and the constant learning rate of all.

    Its data loader receives the batches of the feed; a callback counts the steps.
    """

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        self.model = make_hf_model(config, weights)
        optim = config.optim
        self._arguments = TrainingArguments(
            output_dir="trainer",  # nothing is saved
            use_cpu=device.type == "cpu",
            bf16=config.train.precision is Precision.bf16,
            tf32=False,  # no system uses it; compiling would switch it on, in a way that breaks torch.compile
            torch_compile=config.train.compile,
            max_steps=10**9,
            per_device_train_batch_size=1,  # one item of the data set is a batch
            learning_rate=optim.lr,
            lr_scheduler_type="constant",
            adam_beta1=optim.beta1,
            adam_beta2=optim.beta2,
            adam_epsilon=optim.eps,
            weight_decay=optim.weight_decay,
            max_grad_norm=optim.clip_grad_norm,
            accelerator_config={"dispatch_batches": False},  # there is one process
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

    def loss(self, batch: Batch) -> float:
        return float(self.model(**make_hf_inputs(batch, self.model)).loss)

    def train(self, feed: BatchFeed) -> None:
        trainer = _Trainer(
            model=self.model,
            args=self._arguments,
            train_dataset=_FeedDataset(feed, self.model),
            data_collator=lambda items: items[0],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_CountSteps(trainer, feed))
        trainer.train()


class _FeedDataset(IterableDataset[dict[str, torch.Tensor]]):
    def __init__(self, feed: BatchFeed, model: PreTrainedModel) -> None:
        self._feed, self._model = feed, model

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for data in self._feed:
            yield make_hf_inputs(data.batches[0], self._model)


class _Trainer(Trainer):
    """Keeps the loss of its last step, which callbacks do not receive."""

    last_loss: torch.Tensor

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.last_loss = super().training_step(*args, **kwargs)
        return self.last_loss


class _CountSteps(TrainerCallback):
    def __init__(self, trainer: _Trainer, feed: BatchFeed) -> None:
        self._trainer, self._feed = trainer, feed

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._feed.step_done(self._trainer.last_loss)
        control.should_training_stop = self._feed.finished
