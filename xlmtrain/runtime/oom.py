"""A device whose memory does not suffice: said with the setting that helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xlmtrain.config.schema import Config
from xlmtrain.errors import DeviceOutOfMemory


@contextmanager
def explain_oom(config: Config) -> Iterator[None]:
    """Raise MemoryShortage instead of torch's error, with what to do: half as many tokens at once, as long as a row of
    running text and the longest pair fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        data, at_once = config.data, config.train.micro_batch_tokens or config.data.sub_batch_tokens
        least = max(data.sequence_length, 2 * (data.max_sentence_length + 2) if data.tlm else 0)
        smaller = max(at_once // 2, least)
        advice = f"train.micro_batch_tokens={smaller} computes the same batches in smaller parts"
        if smaller >= at_once:
            advice = "train.sharding=full shares weights and moments out over the processes; or train a smaller model"
        told = ". ".join(str(error).split(". ")[:2])  # how much was asked for; the rest is about torch's allocator
        raise DeviceOutOfMemory(
            f"the device's memory does not suffice for {at_once:,} tokens at once ({told}): {advice}"
        ) from error
