"""What the model is given: one micro-batch as tensors.

Letters: B rows, T positions, N targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from xlmtrain.data.rows import Rows


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
            tokens=move(self.tokens, device),
            positions=move(self.positions, device),
            languages=move(self.languages, device),
            lengths=None if self.lengths is None else move(self.lengths, device),
            target_index=move(self.target_index, device),
            targets=move(self.targets, device),
        )


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on ``device``; copied without waiting if it is a GPU."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def make_batch(
    objective: str, rows: Rows, inputs: np.ndarray, selected: np.ndarray, name: str = "", key: tuple[int, int] = (0, 0)
) -> Batch:
    """A batch that predicts ``rows.tokens`` where ``selected`` (B, T) from the masked ``inputs`` (B, T)."""
    padded = bool((rows.lengths < rows.tokens.shape[1]).any())
    return Batch(
        objective,
        torch.from_numpy(inputs),
        torch.from_numpy(np.array(rows.positions)),  # a copy: streams broadcast one row
        torch.from_numpy(rows.languages),
        torch.from_numpy(rows.lengths) if padded else None,
        torch.from_numpy(np.flatnonzero(selected)),
        torch.from_numpy(rows.tokens[selected]),
        name,
        key,
    )


def make_causal_batch(rows: Rows, name: str = "", key: tuple[int, int] = (0, 0)) -> Batch:
    """A CLM batch: every position but the last of a row predicts its successor."""
    successors = replace(rows, tokens=np.roll(rows.tokens, -1, axis=1))
    column = np.arange(rows.tokens.shape[1])
    return make_batch("clm", successors, rows.tokens, column < rows.lengths[:, None] - 1, name, key)


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of several that have the same objective and the same T; name and key are the first's."""
    first = batches[0]
    length = first.tokens.shape[1]
    starts = np.cumsum([0] + [batch.tokens.numel() for batch in batches[:-1]])
    lengths = None
    if any(batch.lengths is not None for batch in batches):
        full = [torch.full((len(batch.tokens),), length) for batch in batches]
        lengths = torch.cat([rows if batch.lengths is None else batch.lengths for batch, rows in zip(batches, full)])
    return replace(
        first,
        tokens=torch.cat([batch.tokens for batch in batches]),
        positions=torch.cat([batch.positions for batch in batches]),
        languages=torch.cat([batch.languages for batch in batches]),
        lengths=lengths,
        target_index=torch.cat([batch.target_index + int(start) for batch, start in zip(batches, starts)]),
        targets=torch.cat([batch.targets for batch in batches]),
    )
