"""A few real steps: the run's model on its text, at its learning rate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from xlmtrain.config.optim import Schedule
from xlmtrain.config.phases import combined_data, phases_of, total_tokens
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.diagnostics.finding import Finding, error, info, warning
from xlmtrain.diagnostics.rules import unigram_entropy
from xlmtrain.interop.warm_start import initialize_weights
from xlmtrain.metrics.timer import duration
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import build_model
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import autocast, choose_precision
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.parallel import ParallelModel
from xlmtrain.train.step import TrainStep

_TOKENS = 2048  # of a batch of the trial, if the run's is larger
_SECONDS = 60.0  # after which the trial ends on a slow machine
_DAY = 86400.0
_PROBES = 4  # batches whose loss is compared
_BELOW, _ABOVE = 0.5, 1.5  # nats around the loss of random weights
_DECREASE, _RISE = 0.05, 0.5  # nats


def check_first_steps(config: Config, dataset: Dataset, steps: int, device: torch.device) -> Iterator[Finding]:
    """Train for ``steps`` steps on small batches of the first phase.

    The rate rises to the peak in the first third of them. The loss is measured on the trial's first batches, before and
    after, without dropout.
    """
    trial = shortened(phases_of(config)[0].settings, steps)
    precision = choose_precision(trial.train.precision, device)
    loader = Loader(trial, dataset)
    torch.manual_seed(torch_seed(trial.seed, "init"))
    size = (len(dataset.vocab), len(dataset.languages))
    model = build_model(trial.model, combined_data(config), *size, special=dataset.vocab.special)
    pretrained = bool(initialize_weights(trial.init, trial.model, model, dataset))
    optimizer = make_optimizer(trial.optim, model.to(device), device)
    step = TrainStep(trial, ParallelModel(model), optimizer, precision, Distributed(0, 1, device))
    state = begin = loader.sampler.initial_state()
    probe: list[Batch] = []
    for number in range(_PROBES):
        shard = loader.make(number, state)
        step.translate_sources(shard)
        probe += shard.batches
        state = shard.sampler_state
    before = _mean_loss(model, probe, precision, device)
    entropy = unigram_entropy(dataset.vocab.counts)
    yield from check_initial_loss(before, len(dataset.vocab), trial.model.dim, entropy, pretrained)

    model.train()
    started, done, tokens, skipped = time.monotonic(), 0, 0.0, 0
    may_skip = precision is Precision.fp16  # the loss scale may be too high at first
    for data in loader.steps(0, steps, begin):
        result = step(data, data.targets)
        done, tokens = done + 1, tokens + data.tokens
        skipped += not math.isfinite(float(result.grad_norm)) or not math.isfinite(float(result.losses.sum()))
        if (skipped and not may_skip) or time.monotonic() - started > _SECONDS:
            break
    speed = tokens / max(time.monotonic() - started, 1e-9)
    if skipped == done or (skipped and not may_skip):
        what = f"The gradient of step {done} of the trial is not finite."
        yield error(what, f"a lower optim.lr than {config.optim.lr:g}", "train.precision=fp32, to see if it is that")
        return
    yield from check_loss_falls(before, _mean_loss(model, probe, precision, device), done, trial)
    left = total_tokens(phases_of(config)) / speed
    long = duration(left) if left < 2 * _DAY else f"{left / _DAY:,.0f} days"
    yield info(f"{speed:,.0f} tokens a second in small batches: about {long} for the whole run, on this device alone")


def shortened(config: Config, steps: int) -> Config:
    """Return a small version of the run: batches of at most some 2,000 tokens, a short warm-up, then the peak rate."""
    data, train, optim = config.data, config.train, config.optim
    sub_batch = data.sub_batch_tokens
    if sub_batch > _TOKENS:
        least = max(_TOKENS, data.longest_row)
        sub_batch = min(-(-least // data.sequence_length) * data.sequence_length, sub_batch)
    batch = max(min(train.batch_tokens, _TOKENS) // sub_batch, 1) * sub_batch
    return replace(
        config,
        data=replace(data, sub_batch_tokens=sub_batch),
        optim=replace(optim, warmup_steps=min(optim.warmup_steps, max(steps // 3, 1)), schedule=Schedule.constant),
        train=replace(train, batch_tokens=batch, steps=steps),
    )


def check_initial_loss(loss: float, vocab_size: int, dim: int, entropy: float, pretrained: bool) -> Iterator[Finding]:
    """Check the first loss: about ln V for random weights, below the unigram ``entropy`` for ``pretrained`` ones.

    With tied embeddings, a random model predicts its own input, with a logit of up to the length of a hidden state,
    sqrt(dim); where that exceeds ln V, so may the loss.
    """
    uniform = math.log(vocab_size)
    yield info(f"loss at the start {loss:.2f}; ln V = {uniform:.2f}, entropy of the token frequencies {entropy:.2f}")
    highest = max(uniform, math.sqrt(dim)) + _ABOVE
    if pretrained and not loss < entropy:
        what = f"The pretrained weights predict this text worse than the token frequencies do: {loss:.2f}."
        yield error(what, "another vocabulary, or other languages or tokenization, than the model was trained with")
    elif not pretrained and not uniform - _BELOW <= loss <= highest:
        what = f"Random weights begin at {loss:.2f}, not between {uniform - _BELOW:.2f} and {highest:.2f}."
        yield error(what, "below: the targets can be seen in the input; above: the first weights are too large")


def check_loss_falls(before: float, after: float, steps: int, trial: Config) -> Iterator[Finding]:
    """Check that the loss falls on text that the trial has trained on."""
    rate, change = trial.optim.lr, f"{before:.2f} before, {after:.2f} after {steps} steps"
    if not after < before + _RISE:
        lower = f"a lower optim.lr, like {rate / 10:.0e}"
        yield error(f"The loss rises: {change} at rates up to {rate:g}.", lower, "optim.clip_grad_norm=5")
    elif steps < trial.train.steps:
        what = f"In {_SECONDS:.0f} s only {steps} steps were done, too few to tell whether the loss falls ({change})."
        yield warning(what, "a GPU, or a smaller model")
    elif not after < before - _DECREASE:
        higher = f"a higher optim.lr, like {0.2 / trial.model.dim:.0e} for a width of {trial.model.dim}"
        yield error(f"The loss does not fall: {change} at rates up to {rate:g}.", higher)
    else:
        yield info(f"the loss falls: {change}")


@torch.no_grad()
def _mean_loss(model: LanguageModel, batches: Sequence[Batch], precision: Precision, device: torch.device) -> float:
    """Return the nats per target, without dropout."""
    model.eval()
    with autocast(precision, device):
        total = sum(float(model(batch.to(device))) for batch in batches)
    return total / max(sum(len(batch.targets) for batch in batches), 1)
