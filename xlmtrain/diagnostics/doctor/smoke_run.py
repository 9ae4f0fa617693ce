"""A few real steps: the run's model on its text, at its rate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from xlmtrain.config.schema import Config, Precision, Schedule
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.diagnostics.rules import Finding, unigram_entropy
from xlmtrain.interop.warm_start import initialize_weights
from xlmtrain.metrics.timer import duration
from xlmtrain.objective import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import autocast, choose_precision
from xlmtrain.runtime.rng import torch_seed
from xlmtrain.train.step import TrainStep

_TOKENS = 2048
"""In a batch of the trial, if the run's is larger."""
_SECONDS = 60.0
"""After which the trial ends, on a machine that is too slow for it."""
_DAY = 86400.0
_PROBES = 4
_BELOW, _ABOVE = 0.5, 1.5  # nats
_FALLS, _RISES = 0.05, 0.5


def check_first_steps(config: Config, dataset: Dataset, steps: int, device: torch.device) -> Iterator[str | Finding]:
    """Train for ``steps`` steps on small batches, the rate rising to the run's peak in the first third of them.

    The loss is that of the trial's first batches, before and after, without dropout.
    """
    trial = shortened(config, steps)
    precision = choose_precision(trial.train.precision, device)
    loader = Loader(trial, dataset)
    torch.manual_seed(torch_seed(trial.seed, "init"))
    model = LanguageModel(trial.model, len(dataset.vocab), len(dataset.languages))
    given = bool(initialize_weights(trial.init, trial.model, model, dataset))
    model.to(device)
    stepper = TrainStep(trial, model, make_optimizer(trial.optim, model, device), precision, Distributed(0, 1, device))
    probe: list[Batch] = []
    cursors = loader.sampler.initial_state()
    for step in range(_PROBES):
        data = loader.make(step, cursors)
        probe += data.batches
        cursors = data.sampler_state
    before = _loss(model, probe, precision, device)
    entropy = unigram_entropy(dataset.vocab.counts)
    yield from judge_start(before, len(dataset.vocab), trial.model.dim, entropy, given)

    model.train()
    began, done, tokens, lost = time.monotonic(), 0, 0.0, 0
    for data in loader.steps(0, steps, loader.sampler.initial_state()):
        result = stepper(data, data.targets)
        done, tokens = done + 1, tokens + data.tokens
        finite = math.isfinite(float(result.grad_norm)) and math.isfinite(float(result.losses.sum()))
        lost += not finite
        if not finite and precision is not Precision.fp16:  # whose loss scale first has to find its level
            yield _not_finite(done, config)
            return
        if time.monotonic() - began > _SECONDS:
            break
    speed = tokens / max(time.monotonic() - began, 1e-9)
    if lost == done:
        yield _not_finite(done, config)
        return
    after = _loss(model, probe, precision, device)
    yield from judge_fall(before, after, done, trial)
    left = config.train.steps * config.train.batch_tokens / speed
    long = duration(left) if left < 2 * _DAY else f"{left / _DAY:,.0f} days"
    yield f"{speed:,.0f} tokens a second in small batches: about {long} for the whole run, on this device alone"


def shortened(config: Config, steps: int) -> Config:
    """Return a small version of the run: batches of at most some 2,000 tokens, a short warm-up, then the peak rate."""
    data, train, optim = config.data, config.train, config.optim
    sub_batch = data.sub_batch_tokens
    if sub_batch > _TOKENS:
        room = max(_TOKENS, 2 * (data.max_sentence_length + 2) if data.tlm else 0)
        sub_batch = min(-(-room // data.sequence_length) * data.sequence_length, sub_batch)
    batch = max(min(train.batch_tokens, _TOKENS) // sub_batch, 1) * sub_batch
    return replace(
        config,
        data=replace(data, sub_batch_tokens=sub_batch),
        optim=replace(optim, warmup_steps=min(optim.warmup_steps, max(steps // 3, 1)), schedule=Schedule.constant),
        train=replace(train, batch_tokens=batch, steps=steps),
    )


def judge_start(loss: float, vocab_size: int, dim: int, entropy: float, given: bool) -> Iterator[str | Finding]:
    """Random weights know nothing: ln V. ``given``: the weights are another model's, which should know more.

    A model with tied embeddings begins by saying the token that it sees, whose logit can be as large as the length of a
    hidden state, sqrt(dim); where that exceeds ln V, so may the loss.
    """
    nothing = math.log(vocab_size)
    yield f"loss at the start {loss:.2f}; ln V = {nothing:.2f}, knowing the frequency of each token {entropy:.2f}"
    most = max(nothing, math.sqrt(dim)) + _ABOVE
    if given and not loss < entropy:
        yield Finding(
            f"The given first weights know less of this text than the frequencies do: {loss:.2f}.",
            ["another vocabulary, or other languages or tokenization, than the model was trained with"],
        )
    elif not given and not nothing - _BELOW <= loss <= most:
        yield Finding(
            f"Random weights begin at {loss:.2f}, not between {nothing - _BELOW:.2f} and {most:.2f}.",
            ["below: what is to be predicted can be seen; above: the model's first weights are too large"],
        )


def judge_fall(before: float, after: float, steps: int, trial: Config) -> Iterator[str | Finding]:
    """Whether the loss fell, on text that the trial itself has trained on."""
    rate = trial.optim.lr
    if not after < before + _RISES:
        yield Finding(
            f"The loss rises: {before:.2f} before, {after:.2f} after {steps} steps at rates up to {rate:g}.",
            [f"a lower optim.lr, like {rate / 10:.0e}", "clipped gradients, optim.clip_grad_norm=5"],
        )
    elif not after < before - _FALLS and steps >= trial.train.steps:
        yield Finding(
            f"The loss does not fall: {before:.2f} before, {after:.2f} after {steps} steps at rates up to {rate:g}.",
            [f"a higher optim.lr, like {0.2 / trial.model.dim:.0e} for a width of {trial.model.dim}"],
        )
    elif steps < trial.train.steps:
        yield Finding(
            f"In {_SECONDS:.0f} s only {steps} steps were done, too few to tell whether the loss falls "
            f"({before:.2f} before, {after:.2f} after).",
            ["a GPU, or a smaller model"],
            grave=False,
        )
    else:
        yield f"the loss falls: {before:.2f} before, {after:.2f} after {steps} steps"


def _not_finite(step: int, config: Config) -> Finding:
    return Finding(
        f"The gradient of step {step} of the trial is no finite number.",
        [f"a lower optim.lr than {config.optim.lr:g}", "train.precision=fp32, to see if it is that"],
    )


@torch.no_grad()
def _loss(model: LanguageModel, batches: Sequence[Batch], precision: Precision, device: torch.device) -> float:
    """Nats per target, without dropout."""
    model.eval()
    with autocast(precision, device):
        total = sum(float(model(batch.to(device))) for batch in batches)
    return total / max(sum(len(batch.targets) for batch in batches), 1)
