"""Batches of labelled examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from xlmtrain.data.batch import Batch, make_batch
from xlmtrain.data.permutation import Permutation
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.evaluate.classification_data import Encoded
from xlmtrain.evaluate.sentence_embeddings import by_length
from xlmtrain.runtime.rng import generator


def training_batch(
    files: Sequence[Encoded], seed: int, step: int, size: int, rank: int, world_size: int
) -> tuple[Batch, int]:
    """Return this process's share of the ``size`` examples of step ``step``, every ``world_size``-th, and the number of
    targets of all.

    All files' examples form one sequence, shuffled in every epoch; a batch may cross from one epoch to the next.
    """
    starts = np.cumsum([0, *(len(file.ids) for file in files)])
    epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), starts[-1])
    chosen: list[tuple[Encoded, int]] = []
    for epoch in np.unique(epochs):
        shuffled = Permutation(int(starts[-1]), generator(seed, "examples", int(epoch)))(places[epochs == epoch])
        numbers = np.searchsorted(starts, shuffled, side="right") - 1
        chosen += [(files[file], int(index - starts[file])) for file, index in zip(numbers, shuffled)]
    targets = sum(len(file.labels[file.targets(index)]) for file, index in chosen)
    return _batch(chosen[rank::world_size], (rank, 0)), targets


def evaluation_batches(file: Encoded, rank: int, world_size: int) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yield this process's share of a file's batches, in which examples have similar lengths, with the indices of their
    targets among the file's labels."""
    groups = list(by_length([len(ids) + 1 for ids in file.ids]))
    for group in groups[rank::world_size]:
        places = np.concatenate([np.arange(len(file.labels))[file.targets(index)] for index in group])
        yield _batch([(file, index) for index in group], (0, 0)), places


def _batch(chosen: Sequence[tuple[Encoded, int]], rng_key: tuple[int, int]) -> Batch:
    rows = sentence_sequences([file.ids[index] for file, index in chosen], 0, chosen[0][0].special)
    languages = np.array([file.language for file, _ in chosen])
    rows = rows._replace(languages=np.broadcast_to(languages[:, None], rows.tokens.shape).copy())
    predicted = np.zeros(rows.tokens.shape, dtype=bool)
    for row, (file, index) in enumerate(chosen):
        predicted[row, 0 if file.positions is None else file.positions[index]] = True
    labels = torch.from_numpy(np.concatenate([file.labels[file.targets(index)] for file, index in chosen]))
    batch = make_batch("classification", rows, rows.tokens, predicted, rng_key=rng_key)
    types = None
    if chosen[0][0].second is not None:
        starts = np.array([(file.second or [])[index] for file, index in chosen])
        types = torch.from_numpy((np.arange(rows.tokens.shape[1]) >= starts[:, None]).astype(np.int64))
    return replace(batch, targets=labels, token_types=types)
