"""What the model is given: one micro-batch as tensors.

Letters: B rows, T positions, N targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from xlmtrain.data.sequences import Sequences, concat_sequences


@dataclass
class Batch:
    """Rows of one objective.

    ``tokens``, ``positions``, ``languages``: (B, T) int64. ``lengths``: (B,) int64, or None if no row is padded.
    ``target_index``: (N,) int64, places in the flattened (B * T) whose prediction is scored, row by row.
    ``targets``: (N,) int64, the tokens to predict there. ``name``: task and place of the draw, for messages.
    ``key``: (draw in the global batch, part of the draw), which keys the dropout.
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
        """Whether a position sees only itself and what is before it."""
        return self.objective == "clm"

    @property
    def unpadded(self) -> int:
        """Positions that are not padding."""
        return self.tokens.numel() if self.lengths is None else int(self.lengths.sum())

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``; copied without waiting if it is a GPU."""
        return replace(
            self,
            tokens=to_device(self.tokens, device),
            positions=to_device(self.positions, device),
            languages=to_device(self.languages, device),
            lengths=None if self.lengths is None else to_device(self.lengths, device),
            target_index=to_device(self.target_index, device),
            targets=to_device(self.targets, device),
        )


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on ``device``; copied without waiting if it is a GPU."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class MaskedBatch(NamedTuple):
    """Rows with what is to be predicted: ``rows.tokens`` where ``selected`` (B, T) bool, from ``inputs`` (B, T)."""

    rows: Sequences
    inputs: np.ndarray
    selected: np.ndarray


def next_token_targets(rows: Sequences) -> MaskedBatch:
    """What CLM predicts: at every position but the last of a row, the token after it."""
    after = replace(rows, tokens=np.roll(rows.tokens, -1, axis=1))
    return MaskedBatch(after, rows.tokens, np.arange(rows.tokens.shape[1]) < rows.lengths[:, None] - 1)


def concat(exercises: Sequence[MaskedBatch]) -> MaskedBatch:
    """One of several whose rows have the same T."""
    rows, inputs, selected = zip(*exercises)
    return MaskedBatch(concat_sequences(rows), np.concatenate(inputs), np.concatenate(selected))


def split(exercise: MaskedBatch, at_once: int) -> Iterator[MaskedBatch]:
    """Several of one, ``at_once`` rows each, or what is left of them in the last."""
    for start in range(0, len(exercise.inputs), at_once):
        place = slice(start, start + at_once)
        yield MaskedBatch(exercise.rows[place], exercise.inputs[place], exercise.selected[place])


def make_batch(
    objective: str,
    rows: Sequences,
    inputs: np.ndarray,
    selected: np.ndarray,
    name: str = "",
    key: tuple[int, int] = (0, 0),
) -> Batch:
    """A batch that predicts ``rows.tokens`` where ``selected`` (B, T) from the masked ``inputs`` (B, T)."""
    index = np.flatnonzero(selected)
    return Batch(
        objective,
        torch.from_numpy(inputs),
        torch.from_numpy(np.array(rows.positions)),  # copies: rows of a stream have these in common
        torch.from_numpy(np.array(rows.languages)),
        torch.from_numpy(rows.lengths) if rows.padded else None,
        torch.from_numpy(index),
        torch.from_numpy(rows.tokens.ravel()[index]),
        name,
        key,
    )


def make_causal_batch(rows: Sequences, name: str = "", key: tuple[int, int] = (0, 0)) -> Batch:
    """A CLM batch of ``rows``."""
    return make_batch("clm", *next_token_targets(rows), name, key)
