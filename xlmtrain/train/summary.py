"""A few lines at the start of a run: model, device, batch and data."""

from __future__ import annotations

import socket
from collections import Counter

from xlmtrain.config.schema import Config, Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed


def summarize(
    config: Config,
    dataset: Dataset,
    loader: Loader,
    model: LanguageModel,
    precision: Precision,
    distributed: Distributed,
) -> list[str]:
    """Return lines on model and batch, and each task's share of the sub-batches and number of epochs. Collective."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    train, data = config.train, config.data
    count = train.batch_tokens // data.sub_batch_tokens
    lines = [
        f"model: {parameters:,} parameters, vocabulary {len(dataset.vocab):,}, "
        + ", ".join(f"{language}={i}" for i, language in enumerate(dataset.languages)),
        f"device: {distributed.world_size} x {distributed.device.type}, {precision.value}; {_hosts(distributed)}",
        f"batch: {train.batch_tokens:,} tokens = {count} sub-batches of {data.sub_batch_tokens:,}, "
        f"{count // distributed.world_size} per process; {train.steps:,} steps",
    ]
    sampler = loader.sampler
    for component, probability, epochs in zip(sampler.components, sampler.probabilities, sampler.passes(train.steps)):
        lines.append(
            f"{component.name}: {component.source.sentences:,} sentences, {probability:.1%} of the sub-batches, "
            f"{epochs:.2f} epochs"
        )
    return lines


def _hosts(distributed: Distributed) -> str:
    """Return the number of processes on each host. Collective."""
    hosts = Counter(distributed.all_gather_text(socket.gethostname()))
    return ", ".join(f"{count} on {host}" for host, count in hosts.items())
