"""Turn torch.OutOfMemoryError into a message that names the setting to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xlmtrain.config.schema import Config
from xlmtrain.errors import DeviceOutOfMemory

_SMALLER_MODEL = "train.sharding=full splits weights and optimizer state across ranks; or train a smaller model"


@contextmanager
def explain_oom(subject: str, advice: str) -> Iterator[None]:
    """Raise DeviceOutOfMemory instead of torch's error: ``subject`` does not fit, and ``advice`` helps."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        request = ". ".join(str(error).split(". ")[:2])  # the size requested; the rest is about torch's allocator
        raise DeviceOutOfMemory(f"the device has too little memory for {subject} ({request}): {advice}") from error


def step_advice(config: Config) -> tuple[str, str]:
    """Return the subject and the advice for an optimizer step: half the micro-batch.

    A micro-batch has at least the longest row; below that the model itself is too large.
    """
    tokens = config.micro_batch_tokens
    text = "train.micro_batch_tokens={} computes the same batches in smaller parts"
    advice = _half(text, tokens, config.data.longest_row)
    return f"a micro-batch of {tokens:,} tokens", advice


def evaluation_advice(config: Config) -> tuple[str, str]:
    """Return the subject and the advice for an evaluation: half the batch, of at least one row of running text."""
    tokens, pairs = config.evaluate.batch_tokens, config.evaluate.pairs_per_batch
    text = "evaluate.batch_tokens={} evaluates the same text in smaller parts"
    advice = _half(text, tokens, config.data.sequence_length)
    if config.data.reads_sentences:  # the masks depend on it, so a run cannot change it
        advice += f"; if sentence pairs do not fit, start a new run with evaluate.pairs_per_batch below {pairs}"
    return f"an evaluation with {tokens:,} tokens per batch", advice


def model_advice() -> tuple[str, str]:
    """Return the subject and the advice for the model and its optimizer state."""
    return "the model and its optimizer state", _SMALLER_MODEL


def _half(advice: str, tokens: int, least: int) -> str:
    smaller = max(tokens // 2, least)
    return advice.format(smaller) if smaller < tokens else _SMALLER_MODEL
