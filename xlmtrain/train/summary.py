"""What a run is about to do, in a few lines at its start."""

from __future__ import annotations

import socket
from collections import Counter

from xlmtrain.config.schema import Config, Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.objective import LanguageModel
from xlmtrain.runtime.distributed import Distributed


def summarize(
    config: Config,
    dataset: Dataset,
    loader: Loader,
    model: LanguageModel,
    precision: Precision,
    distributed: Distributed,
) -> list[str]:
    """Model, batch, and for each component its share of the sub-batches and how often its text will be seen."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    train, data = config.train, config.data
    sub_batches = train.batch_tokens // data.sub_batch_tokens
    lines = [
        f"model: {parameters:,} parameters, vocabulary {len(dataset.vocab):,}, "
        + ", ".join(f"{language}={i}" for i, language in enumerate(dataset.languages)),
        f"device: {distributed.world_size} x {distributed.device.type}, {precision.value}; {_hosts(distributed)}",
        f"batch: {train.batch_tokens:,} tokens = {sub_batches} sub-batches of {data.sub_batch_tokens:,}, "
        f"{sub_batches // distributed.world_size} a process; {train.steps:,} steps",
    ]
    sampler = loader.sampler
    for component, probability in zip(sampler.components, sampler.probabilities):
        passes = probability * sub_batches * train.steps / component.source.sub_batch_count(0)
        lines.append(
            f"{component.name}: {component.source.sentences:,} sentences, {probability:.1%} of the sub-batches, "
            f"seen {passes:.2f} times"
        )
    return lines


def _hosts(distributed: Distributed) -> str:
    """How many processes are where; each of them has to call it."""
    hosts = Counter(distributed.all_gather_text(socket.gethostname()))
    return ", ".join(f"{count} on {host}" for host, count in hosts.items())
