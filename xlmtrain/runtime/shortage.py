"""A device whose memory does not suffice: said with the setting that helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xlmtrain.errors import MemoryShortage


@contextmanager
def shortage_explained(key: str, tokens: int, least: int, otherwise: str) -> Iterator[None]:
    """Raise MemoryShortage instead of torch's error, with what to do.

    ``key``: the setting of how many ``tokens`` are computed at once, ``least``: the fewest that it can be;
    ``otherwise``: what helps when it is there already.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        smaller = max(tokens // 2, least)
        advice = f"{key}={smaller} computes them in smaller parts" if smaller < tokens else otherwise
        told = ". ".join(str(error).split(". ")[:2])  # how much was asked for; the rest is about torch's allocator
        raise MemoryShortage(
            f"the device's memory does not suffice for {tokens:,} tokens at once ({told}): {advice}"
        ) from error
