"""transformers' Trainer around its XLM: its own loop, data loader, clipping, optimizer and autocast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch.utils.data import IterableDataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from contest.hf import make_inputs, make_model
from contest.turns import Turns
from xlmtrain.config.schema import Config, Precision
from xlmtrain.data.batch import Batch
from xlmtrain.model.language_model import LanguageModel

_NO_END = 10**9


class Loop:
    """``Trainer.train`` as it comes, but for logging and saving, which are off, and a rate that is constant as all have
    it. Its data loader is handed the batches that all have, and it hands over to the others after a step."""

    def __init__(self, config: Config, weights: LanguageModel, device: torch.device) -> None:
        self.model = make_model(config, weights)
        optim, precision = config.optim, config.train.precision
        arguments = TrainingArguments(
            output_dir="trainer",  # where nothing is saved
            use_cpu=device.type == "cpu",
            bf16=precision is Precision.bf16,
            tf32=False,  # nobody has it; compiling would switch it on, in a way that breaks torch's compiler
            torch_compile=config.train.compile,
            max_steps=_NO_END,
            per_device_train_batch_size=1,  # a batch is one item of the data set
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
        self._batches = _Batches()
        self._trainer = _Trainer(
            model=self.model, args=arguments, train_dataset=self._batches, data_collator=lambda items: items[0]
        )
        self._trainer.remove_callback(PrinterCallback)

    def loss(self, batch: Batch) -> float:
        """See :class:`contest.worker.Trains`."""
        return float(self.model(**make_inputs(batch)).loss)

    def train(self, turns: Turns) -> None:
        """See :class:`contest.worker.Trains`."""
        self._batches.turns = turns
        self._trainer.add_callback(_Handover(self._trainer, turns))
        self._trainer.train()


class _Batches(IterableDataset[dict[str, torch.Tensor]]):
    turns: Turns

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for data in self.turns:
            yield make_inputs(data.batches[0])


class _Trainer(Trainer):
    """Keeps the loss of its last step, which callbacks are not told."""

    last_loss: torch.Tensor

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.last_loss = super().training_step(*args, **kwargs)
        return self.last_loss

    def unwrapped_optimizer(self) -> torch.optim.Optimizer:
        """That which steps the weights: accelerate puts one of its own around it."""
        assert isinstance(self.optimizer, AcceleratedOptimizer)
        return self.optimizer.optimizer


class _Handover(TrainerCallback):
    def __init__(self, trainer: _Trainer, turns: Turns) -> None:
        self._trainer, self._turns = trainer, turns

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        # The model as it is called, so perhaps the compiled one.
        self._turns.watch(self._trainer.model_wrapped, self._trainer.unwrapped_optimizer())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._turns.done(self._trainer.last_loss)
        control.should_training_stop = self._turns.over
