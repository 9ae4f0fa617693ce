"""What a run is about to do, in a few lines at its start."""

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
    """Model, batch, and for each task its share of the draws and how often its text will be seen."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    train, data = config.train, config.data
    draws = train.batch_tokens // data.sub_batch_tokens
    lines = [
        f"model: {parameters:,} parameters, vocabulary {len(dataset.vocab):,}, "
        + ", ".join(f"{language}={i}" for i, language in enumerate(dataset.languages)),
        f"device: {distributed.world_size} x {distributed.device.type}, {precision.value}; {_hosts(distributed)}",
        f"batch: {train.batch_tokens:,} tokens = {draws} draws of {data.sub_batch_tokens:,}, "
        f"{draws // distributed.world_size} a process; {train.steps:,} steps",
    ]
    sampler = loader.sampler
    for task, share, passes in zip(sampler.tasks, sampler.probabilities, sampler.passes(train.steps)):
        sentences = task.source.sentences
        lines.append(f"{task.name}: {sentences:,} sentences, {share:.1%} of the sub-batches, seen {passes:.2f} times")
    return lines


def _hosts(distributed: Distributed) -> str:
    """How many processes are where; each of them has to call it."""
    hosts = Counter(distributed.all_gather_text(socket.gethostname()))
    return ", ".join(f"{count} on {host}" for host, count in hosts.items())
