"""A few lines at the start of a run: model, device, batch and data."""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Iterator

from xlmtrain.config.phases import Phase
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.sampling import Sampler
from xlmtrain.runtime.device import usable_cores
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.step import TrainStep


def summarize(dataset: Dataset, loader: Loader, step: TrainStep) -> list[str]:
    """Return lines on model and batch, and each task's share of the sub-batches and number of epochs. Collective."""
    distributed = step.distributed
    parameters = sum(parameter.numel() for parameter in step.model.parameters())
    hosts = distributed.all_gather_text(socket.gethostname())
    return [
        f"model: {parameters:,} parameters, vocabulary {len(dataset.vocab):,}, "
        + ", ".join(f"{language}={i}" for i, language in enumerate(dataset.languages)),
        f"device: {distributed.world_size} x {distributed.device.type}, {step.precision.value}; "
        + ", ".join(f"{number} on {host}" for host, number in Counter(hosts).items()),
        *(
            line
            for phase, sampler in zip(loader.phases, loader.samplers)
            for line in _describe(phase, sampler, distributed.world_size)
        ),
        *_idle_cores(loader, distributed),
    ]


def _idle_cores(loader: Loader, distributed: Distributed) -> Iterator[str]:
    """Yield how to train in more processes on a CPU, if this is the only one."""
    cores = usable_cores()
    settings = [phase.settings for phase in loader.phases]
    sub_batches = math.gcd(*(one.train.batch_tokens // one.data.sub_batch_tokens for one in settings))
    processes = max(number for number in range(1, cores + 1) if sub_batches % number == 0)
    if distributed.device.type == "cpu" and distributed.world_size == 1 and processes > 1:
        launcher = f"torchrun --standalone --nproc-per-node={processes} -m xlmtrain train ..."
        yield f"1 process on {cores} cores; compare tokens/s with the same batches in {processes}: {launcher}"


def _describe(phase: Phase, sampler: Sampler, processes: int) -> Iterator[str]:
    """Yield lines on the batch of a phase and the components of its mixture."""
    sub_batch, batch = phase.settings.data.sub_batch_tokens, phase.settings.train.batch_tokens
    count, steps = batch // sub_batch, phase.span.steps
    yield (
        f"{f'phase {phase.name}, ' if phase.name else ''}batch: {batch:,} tokens = {count} sub-batches of "
        f"{sub_batch:,}, {count // processes} per process; {steps:,} steps"
    )
    for component, share, epochs in zip(sampler.components, sampler.probabilities, sampler.passes(steps)):
        sentences = f"{component.name}: {component.source.sentences:,} sentences"
        yield f"{sentences}, {share:.1%} of the sub-batches, {epochs:.2f} epochs"
