"""A micro-batch: what the model reads and predicts, as tensors.

Letters: B sequences, T positions, N targets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from xlmtrain.data.sequences import SequenceBatch
from xlmtrain.runtime.device import copies_asynchronously

_JOINED_MULTIPLE = 64
"""Joined batches are filled up to a multiple of so many positions: each new size costs time once, and memory for good
(see TARGETS_MULTIPLE in model/kernels/linear_cross_entropy.py)."""


@dataclass
class EncoderInput:
    """Sentences that an encoder reads, for a decoder to translate.

    ``tokens``, ``positions``, ``languages``: (B, S) int64. ``lengths``: (B,) int64, or None without padding.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    languages: torch.Tensor
    lengths: torch.Tensor | None

    def to(self, device: torch.device) -> EncoderInput:
        """Return the sentences on ``device``; the copy to a GPU is asynchronous."""
        return replace(self, **_moved(self, device))


class Part(NamedTuple):
    """One of the batches that were joined: its rows of ``length`` positions, and the number of its targets."""

    objective: str
    rows: int
    length: int
    padded: bool
    targets: int


@dataclass
class Batch:
    """Sequences of one objective, or of several that are joined.

    ``tokens``, ``positions``, ``languages``: (B, T) int64. ``lengths``: (B,) int64, or None without padding.
    ``target_index``: (N,) int64, ascending indices into the flattened (B * T) positions to predict at.
    ``targets``: (N,) int64, the tokens to predict there. ``name``: component and sub-batch, for messages.
    ``rng_key``: (slot of the sub-batch in the global batch, part of the sub-batch), which seeds the dropout.
    ``source``: for translation, the source sentences; the other fields then hold the target.
    ``token_types``: (B, T) int64, of pairs of texts, or None for type 0.
    ``parts``: the batches that were joined into this one, if it was. B is 1 then, T counts the positions of all rows of
    all parts, ``lengths`` are those of these rows, and ``objective`` is that of the first part.
    """

    objective: str
    tokens: torch.Tensor
    positions: torch.Tensor
    languages: torch.Tensor
    lengths: torch.Tensor | None
    target_index: torch.Tensor
    targets: torch.Tensor
    name: str = ""
    rng_key: tuple[int, int] = (0, 0)
    source: EncoderInput | None = None
    token_types: torch.Tensor | None = None
    parts: tuple[Part, ...] = ()

    @property
    def causal(self) -> bool:
        """True if each position attends only to itself and those before it."""
        return self.objective == "clm"

    @property
    def padded_tokens(self) -> int:
        """Number of tokens, padding and source included."""
        return self.tokens.numel() + (0 if self.source is None else self.source.tokens.numel())

    @property
    def nonpad_tokens(self) -> int:
        """Number of tokens that are not padding, source included."""
        sides: list[Batch | EncoderInput] = [self] if self.source is None else [self, self.source]
        return sum(s.tokens.numel() if s.lengths is None else int(s.lengths.sum()) for s in sides)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``; the copy to a GPU is asynchronous."""
        return replace(self, **_moved(self, device), source=None if self.source is None else self.source.to(device))


def _moved(batch: Batch | EncoderInput, device: torch.device) -> dict[str, Any]:
    return {name: to_device(value, device) for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}


def dummy_batch(targets: int = 1) -> Batch:
    """Return a batch of one token, to take part in a forward pass without data. ``targets``: 0 or 1."""
    ones = torch.ones(1, 1, dtype=torch.int64)
    return Batch("mlm", ones, 0 * ones, 0 * ones, None, 0 * ones[0, :targets], ones[0, :targets])


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a host tensor on ``device``; the copy to a GPU is asynchronous."""
    pinned = copies_asynchronously(device)
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)


class NumpyBatch(NamedTuple):
    """Model ``inputs`` (B, T) int64; ``sequences.tokens`` are to be predicted where ``selected`` (B, T) bool.

    ``source``: B sentences to predict them from, in translation and denoising.
    """

    sequences: SequenceBatch
    inputs: np.ndarray
    selected: np.ndarray
    source: SequenceBatch | None = None

    @property
    def row_shape(self) -> tuple[int, int]:
        """Tokens of a row, and of its source."""
        return self.inputs.shape[1], 0 if self.source is None else self.source.tokens.shape[1]

    @property
    def padded_tokens(self) -> int:
        """Number of tokens, padding and source included."""
        return len(self.inputs) * sum(self.row_shape)


def next_token_targets(sequences: SequenceBatch, source: SequenceBatch | None = None) -> NumpyBatch:
    """Return the targets of a causal model: at every position but the last of a sequence, the token after it."""
    shifted = sequences._replace(tokens=np.roll(sequences.tokens, -1, axis=1))
    selected = np.arange(sequences.tokens.shape[1]) < sequences.lengths[:, None] - 1
    return NumpyBatch(shifted, sequences.tokens, selected, source)


def concat(batches: Iterable[NumpyBatch]) -> NumpyBatch:
    """Concatenate batches of the same row shape along B."""
    sequences, inputs, selected, sources = zip(*batches)
    source = None if sources[0] is None else _concat_sequences(sources)
    return NumpyBatch(_concat_sequences(sequences), np.concatenate(inputs), np.concatenate(selected), source)


def _concat_sequences(parts: Iterable[SequenceBatch]) -> SequenceBatch:
    return SequenceBatch(*(np.concatenate(arrays) for arrays in zip(*parts)))


def split(batch: NumpyBatch, size: int) -> Iterator[NumpyBatch]:
    """Split a batch into parts of ``size`` sequences; the last part may be smaller."""
    for start in range(0, len(batch.inputs), size):
        part = slice(start, start + size)
        sequences = SequenceBatch(*(array[part] for array in batch.sequences))
        source = batch.source and SequenceBatch(*(array[part] for array in batch.source))
        yield NumpyBatch(sequences, batch.inputs[part], batch.selected[part], source)


def make_batch(
    objective: str,
    sequences: SequenceBatch,
    inputs: np.ndarray,
    selected: np.ndarray,
    source: SequenceBatch | None = None,
    name: str = "",
    rng_key: tuple[int, int] = (0, 0),
) -> Batch:
    """Return the batch that predicts ``sequences.tokens`` where ``selected`` (B, T) from ``inputs`` (B, T).

    In translation and denoising, ``inputs`` are the decoder's, and ``source`` is the encoder's.
    """
    index = np.flatnonzero(selected)
    padded = sequences.lengths.min() < inputs.shape[1]
    return Batch(
        objective,
        torch.from_numpy(inputs),
        torch.from_numpy(np.array(sequences.positions)),  # copies, because a source's sub-batches share these arrays
        torch.from_numpy(np.array(sequences.languages)),
        torch.from_numpy(sequences.lengths) if padded else None,
        torch.from_numpy(index),
        torch.from_numpy(sequences.tokens.ravel()[index]),
        name,
        rng_key,
        None if source is None else encoder_input(source),
    )


def join_batches(batches: Sequence[Batch], tokens: int) -> list[Batch]:
    """Return ``batches`` joined to ones of at most ``tokens`` positions, whatever their lengths and objectives.

    So a device computes one large batch instead of several small ones. Causal ones are joined with each other. Those
    with a source stay as they are.
    """
    joined: dict[tuple[bool, int | None], list[list[Batch]]] = {}
    for number, batch in enumerate(batches):
        alike = joined.setdefault((batch.causal, None if batch.source is None else number), [[]])
        together = sum(other.padded_tokens for other in [*alike[-1], batch])
        if alike[-1] and together + -together % _JOINED_MULTIPLE > tokens:
            alike.append([])
        alike[-1].append(batch)
    return [_joined(group) for alike in joined.values() for group in alike]


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return one batch, with the key of the first; a last row without targets fills it up."""
    if len(batches) == 1:
        return batches[0]
    parts = [
        Part(b.objective, len(b.tokens), b.tokens.shape[1], b.lengths is not None, len(b.targets)) for b in batches
    ]
    ends = list(itertools.accumulate(batch.padded_tokens for batch in batches))
    lengths = [torch.full((p.rows,), p.length) if b.lengths is None else b.lengths for b, p in zip(batches, parts)]
    if filling := -ends[-1] % _JOINED_MULTIPLE:
        parts.append(Part(batches[0].objective, 1, filling, padded=False, targets=0))
        lengths.append(torch.full((1,), filling))

    def flat(name: str) -> torch.Tensor:
        values = [getattr(batch, name).flatten() for batch in batches]
        return torch.cat([*values, torch.zeros(filling, dtype=torch.int64)])[None]

    return replace(
        batches[0],
        tokens=flat("tokens"),
        positions=flat("positions"),
        languages=flat("languages"),
        lengths=torch.cat(lengths) if any(part.padded for part in parts) else None,
        target_index=torch.cat([batch.target_index + start for batch, start in zip(batches, [0, *ends])]),
        targets=torch.cat([batch.targets for batch in batches]),
        name="; ".join(batch.name for batch in batches),
        parts=tuple(parts),
    )


def make_causal_batch(sequences: SequenceBatch, name: str = "") -> Batch:
    """Return the CLM batch of ``sequences``."""
    return make_batch("clm", *next_token_targets(sequences), name=name)


def encoder_input(sequences: SequenceBatch) -> EncoderInput:
    """Return ``sequences`` as an encoder reads them."""
    return EncoderInput(
        torch.from_numpy(sequences.tokens),
        torch.from_numpy(np.array(sequences.positions)),
        torch.from_numpy(sequences.languages),
        torch.from_numpy(sequences.lengths) if sequences.lengths.min() < sequences.tokens.shape[1] else None,
    )


def make_seq2seq_batch(objective: str, source: SequenceBatch, target: SequenceBatch, name: str = "") -> Batch:
    """Return the batch that predicts ``target`` from ``source``: at every position but the last, the token after it."""
    return make_batch(objective, *next_token_targets(target, source), name=name)
