"""A micro-batch: what the model reads and predicts, as tensors.

Letters: B sequences, T positions, N targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from xlmtrain.data.sequences import Sequences, concat_sequences


@dataclass
class Batch:
    """Sequences of one objective.

    ``tokens``, ``positions``, ``languages``: (B, T) int64. ``lengths``: (B,) int64, or None without padding.
    ``target_index``: (N,) int64, ascending indices into the flattened (B * T) positions to predict at.
    ``targets``: (N,) int64, the tokens to predict there. ``name``: component and sub-batch, for messages.
    ``key``: (slot of the sub-batch in the global batch, part of the sub-batch), which seeds the dropout.
    """

    objective: str
    tokens: torch.Tensor
    positions: torch.Tensor
    languages: torch.Tensor
    lengths: torch.Tensor | None
    target_index: torch.Tensor
    targets: torch.Tensor
    name: str = ""
    key: tuple[int, int] = (0, 0)

    @property
    def causal(self) -> bool:
        """True if a position attends only to itself and the positions before it."""
        return self.objective == "clm"

    @property
    def unpadded(self) -> int:
        """Number of positions that are not padding."""
        return self.tokens.numel() if self.lengths is None else int(self.lengths.sum())

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``; the copy to a GPU is asynchronous."""
        return replace(
            self,
            tokens=to_device(self.tokens, device),
            positions=to_device(self.positions, device),
            languages=to_device(self.languages, device),
            lengths=None if self.lengths is None else to_device(self.lengths, device),
            target_index=to_device(self.target_index, device),
            targets=to_device(self.targets, device),
        )


def one_token(targets: int = 1) -> Batch:
    """Return a batch of one token, to take part in a forward pass without data. ``targets``: 0 or 1."""
    one = torch.ones(1, 1, dtype=torch.int64)
    return Batch("mlm", one, 0 * one, 0 * one, None, 0 * one[0, :targets], one[0, :targets])


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a host tensor on ``device``; the copy to a GPU is asynchronous."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class MaskedBatch(NamedTuple):
    """Model ``inputs`` (B, T) int64; ``sequences.tokens`` are to be predicted where ``selected`` (B, T) bool."""

    sequences: Sequences
    inputs: np.ndarray
    selected: np.ndarray


def next_token_targets(sequences: Sequences) -> MaskedBatch:
    """Return the CLM targets: at every position but the last of a sequence, the token after it."""
    shifted = replace(sequences, tokens=np.roll(sequences.tokens, -1, axis=1))
    selected = np.arange(sequences.tokens.shape[1]) < sequences.lengths[:, None] - 1
    return MaskedBatch(shifted, sequences.tokens, selected)


def concat(batches: Iterable[MaskedBatch]) -> MaskedBatch:
    """Concatenate batches of the same T along B."""
    sequences, inputs, selected = zip(*batches)
    return MaskedBatch(concat_sequences(sequences), np.concatenate(inputs), np.concatenate(selected))


def split(batch: MaskedBatch, size: int) -> Iterator[MaskedBatch]:
    """Split a batch into parts of ``size`` sequences; the last part may be smaller."""
    for start in range(0, len(batch.inputs), size):
        part = slice(start, start + size)
        yield MaskedBatch(batch.sequences[part], batch.inputs[part], batch.selected[part])


def make_batch(
    objective: str,
    sequences: Sequences,
    inputs: np.ndarray,
    selected: np.ndarray,
    name: str = "",
    key: tuple[int, int] = (0, 0),
) -> Batch:
    """Return the batch that predicts ``sequences.tokens`` where ``selected`` (B, T) from ``inputs`` (B, T)."""
    index = np.flatnonzero(selected)
    return Batch(
        objective,
        torch.from_numpy(inputs),
        torch.from_numpy(np.array(sequences.positions)),  # copies, because windows of a stream share these arrays
        torch.from_numpy(np.array(sequences.languages)),
        torch.from_numpy(sequences.lengths) if sequences.padded else None,
        torch.from_numpy(index),
        torch.from_numpy(sequences.tokens.ravel()[index]),
        name,
        key,
    )


def make_causal_batch(sequences: Sequences, name: str = "") -> Batch:
    """Return the CLM batch of ``sequences``."""
    return make_batch("clm", *next_token_targets(sequences), name)
