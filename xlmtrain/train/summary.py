"""A few lines at the start of a run: model, device, batch and data."""

from __future__ import annotations

import socket
from collections import Counter

from xlmtrain.config.schema import Config
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.train.step import TrainStep


def summarize(config: Config, dataset: Dataset, loader: Loader, step: TrainStep) -> list[str]:
    """Return lines on model and batch, and each task's share of the sub-batches and number of epochs. Collective."""
    train, data, distributed, sampler = config.train, config.data, step.distributed, loader.sampler
    parameters = sum(parameter.numel() for parameter in step.model.parameters())
    count, hosts = train.batch_tokens // data.sub_batch_tokens, distributed.all_gather_text(socket.gethostname())
    return [
        f"model: {parameters:,} parameters, vocabulary {len(dataset.vocab):,}, "
        + ", ".join(f"{language}={i}" for i, language in enumerate(dataset.languages)),
        f"device: {distributed.world_size} x {distributed.device.type}, {step.precision.value}; "
        + ", ".join(f"{number} on {host}" for host, number in Counter(hosts).items()),
        f"batch: {train.batch_tokens:,} tokens = {count} sub-batches of {data.sub_batch_tokens:,}, "
        f"{count // distributed.world_size} per process; {train.steps:,} steps",
        *(
            f"{component.name}: {component.source.sentences:,} sentences, {share:.1%} of the sub-batches, "
            f"{epochs:.2f} epochs"
            for component, share, epochs in zip(sampler.components, sampler.probabilities, sampler.passes(train.steps))
        ),
    ]
