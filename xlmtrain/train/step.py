"""One optimizer step: from micro-batches to updated weights and step outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from xlmtrain.config.data import OBJECTIVES
from xlmtrain.config.optim import FusedAdam, OptimConfig, OptimizerName
from xlmtrain.config.phases import phase_at, phases_of
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch, join_batches
from xlmtrain.data.loader import StepBatches
from xlmtrain.generate.back_translation import Translations, back_translate
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.optim.average import WeightAverage
from xlmtrain.optim.schedule import phase_learning_rate
from xlmtrain.runtime.device import seed_device
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint, failpoint_value
from xlmtrain.runtime.precision import autocast, make_scaler
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.parallel import ParallelModel, full_tensor


@dataclass
class StepOutput:
    """Step outputs, left on the device so that logging, not the step, synchronises.

    ``losses``: (objectives,) this process's summed loss; ``targets``: (objectives,) targets in the global batch;
    ``grad_norm``: () before clipping; ``skipped``: () 1 if the weights were not updated, because the gradient was not
    finite or the loss was above the limit; ``generate_seconds``: spent on translating.
    """

    losses: torch.Tensor
    targets: list[float]
    grad_norm: torch.Tensor
    skipped: torch.Tensor
    learning_rate: float
    generate_seconds: float = 0.0


@dataclass
class OptimizerStep:
    """A model with its optimizer and loss scale. :meth:`run` is one step: learning rate, gradient, clipping, update.

    ``learning_rate``: of a step, from 0. ``loss_limit``: loss per target; None is no limit. A step whose loss is above
    it, or whose gradient is not finite, leaves weights and optimizer state unchanged. ``translations``: those of
    back-translation that the next steps train on, too.
    """

    optim: OptimConfig
    learning_rate: Callable[[int], float]
    parallel: ParallelModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    distributed: Distributed
    loss_limit: float | None = None
    average: WeightAverage | None = None
    translations: Translations = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = self.parallel.model
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def run(self, step: int, targets: list[float], backward: Callable[[], torch.Tensor]) -> StepOutput:
        """Run step ``step``, from 0. ``backward`` accumulates the scaled gradient and returns the summed losses."""
        rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = backward()
        self.scaler.unscale_(self.optimizer)
        norm = full_tensor(nn.utils.clip_grad_norm_(self._trained, self.optim.clip_grad_norm or float("inf")))
        skipped = (~torch.isfinite(norm)).to(torch.float32)
        if self.loss_limit is not None:
            loss = sum(self.distributed.all_reduce_sum(losses.tolist())) / max(sum(targets), 1.0)
            skipped.fill_(max(float(skipped), float(loss > self.loss_limit)))
        self._update(skipped)
        self.optimizer.zero_grad()
        return StepOutput(losses, targets, norm, skipped, rate)

    def _update(self, skipped: torch.Tensor) -> None:
        """Step the optimizer unless ``skipped``. With torch's fused AdamW the host does not wait to know."""
        if self.scaler.is_enabled():
            if self.loss_limit is None or not skipped.item():
                self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.optim.fused is FusedAdam.torch and self.optim.name is OptimizerName.adamw:
            # torch's fused kernels skip the update where this flag is set; GradScaler uses it too.
            self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skipped.item():
            self.optimizer.step()


class TrainStep(OptimizerStep):
    """Compute the gradient of a global batch and step the optimizer.

    loss = sum over objectives of factor x share x (summed loss / targets). The factor is ``data.loss_weight`` at the
    step, in its phase, the share the objective's fraction of the sub-batches. Both sums are over the global batch, all
    micro-batches of all processes: no mean of means.
    """

    model: LanguageModel

    def __init__(
        self,
        config: Config,
        parallel: ParallelModel,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        distributed: Distributed,
    ) -> None:
        scaler = make_scaler(config.train, precision, distributed.device)
        self.phases = phases_of(config)
        super().__init__(config.optim, self._rate, parallel, optimizer, scaler, precision, distributed)
        self._seed, self._bt = config.seed, config.bt
        self.average: WeightAverage = WeightAverage(config.average, self.model)

    def _rate(self, step: int) -> float:
        return phase_learning_rate(phase_at(self.phases, step), step)

    def __call__(self, data: StepBatches, targets: list[float]) -> StepOutput:
        """Train on ``data``, this process's part of a global batch with ``targets`` (objectives,) in total."""
        seconds = self.translate_sources(data)
        output = self.run(data.step, targets, partial(self._backward, data, targets))
        self.average.update(data.step + 1)
        return replace(output, generate_seconds=seconds)

    def translate_sources(self, data: StepBatches) -> float:
        """Translate the sources of back-translation in ``data``, in place; return the seconds that it took."""
        if phase_at(self.phases, data.step).translation_step(data.step) == data.step:
            self.translations.clear()
        device, chosen = self.distributed.device, [i for i, b in enumerate(data.batches) if b.objective == "bt"]
        if not chosen:
            return 0.0
        assert isinstance(self.model, TranslationModel), "an objective of the decoder builds one"
        if device.type != "cpu":  # what is left of the last step is not generating
            torch.get_device_module(device).synchronize()
        started = time.monotonic()
        # A context of its own: autocast keeps casts made without gradients until the outermost one ends.
        with autocast(self.precision, device):
            for i in chosen:
                failpoint("generate")
                data.batches[i] = back_translate(
                    self.model, data.batches[i], self._bt, self._seed, data.step, device, self.translations
                )
        if self._bt.steps_per_translation == 1:
            self.translations.clear()
        return time.monotonic() - started

    def micro_batches(self, data: StepBatches) -> list[Batch]:
        """Return the batches to compute: small ones of ``data`` joined, and as many as other processes have.

        Compiled blocks are not given joined batches: each new combination of lengths would be compiled. Collective if
        weights are sharded.
        """
        settings, batches = phase_at(self.phases, data.step).settings, data.batches
        if settings.micro_batch_tokens > settings.data.sub_batch_tokens and not settings.train.compile:
            batches = join_batches(batches, settings.micro_batch_tokens)
        return self.parallel.pad(batches)

    def _backward(self, data: StepBatches, targets: list[float]) -> torch.Tensor:
        """Accumulate the gradient over the micro-batches; reduce it over the processes with the last one."""
        device, world_size = self.distributed.device, self.distributed.world_size
        losses = torch.zeros(len(OBJECTIVES), device=device)
        batches, phase = self.micro_batches(data), phase_at(self.phases, data.step)

        def weight(objective: str) -> float:
            factor = phase.loss_factor(objective, data.step) * data.shares[objective]
            # Data parallelism averages over the processes; the loss is a sum over them.
            return factor * world_size / max(targets[OBJECTIVES.index(objective)], 1.0)

        for number, batch in enumerate(batches, 1):
            objectives = [part.objective for part in batch.parts] or [batch.objective]
            seed_device(torch_seed(self._seed, "dropout", data.step, *batch.rng_key), device)
            with self.parallel.micro_batch(batch, last=number == len(batches)):
                with autocast(self.precision, device):
                    loss = failpoint_value("loss", self.parallel.wrapped_model(batch.to(device)))
                parts = list(zip(objectives, torch.atleast_1d(loss).unbind()))
                self.scaler.scale(sum(loss * weight(objective) for objective, loss in parts)).backward()
            for objective, loss in parts:
                losses[OBJECTIVES.index(objective)] += loss.detach()
        return losses
