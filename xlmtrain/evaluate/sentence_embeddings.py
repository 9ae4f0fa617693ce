"""Sentence vectors: a layer's hidden states, pooled.

Letters: B rows, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from xlmtrain.config.schema import Pooling
from xlmtrain.data.batch import make_batch
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.model.language_model import LanguageModel

BATCH_TOKENS = 8192
"""Tokens in a forward pass, padding included."""


def pooled(states: torch.Tensor, lengths: torch.Tensor | None, pooling: Pooling) -> torch.Tensor:
    """(B, D) of states (B, T, D) that are zero at padding; ``lengths`` (B,), None if no row is padded."""
    if pooling is Pooling.first:
        return states[:, 0]
    if lengths is None:
        return states.mean(dim=1)
    return states.sum(dim=1) / lengths.to(states)[:, None]


@torch.no_grad()
def embed(
    model: LanguageModel,
    ids: Sequence[np.ndarray],
    language: int,
    poolings: Sequence[Pooling],
    layers: range,
    causal: bool = False,
    share: tuple[int, int] = (0, 1),
    stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """(poolings, layers, sentences, D) float32, in the order given; layer 0 is the embeddings.

    ``ids``: each sentence with its EOS. ``causal``: a state sees what is before it only. ``share``: (rank, processes);
    what falls to another process is zero here. ``stop``: asked before every batch; once it says so, the rest is zero,
    too. The model is in evaluation mode meanwhile.
    """
    was_training = model.training
    model.eval()
    weight = model.encoder.token_embeddings.weight
    vectors = np.zeros((len(poolings), len(layers), len(ids), weight.shape[1]), dtype=np.float32)
    batches = list(by_length([len(sentence) + 1 for sentence in ids]))
    for chosen in batches[share[0] :: share[1]]:
        if stop():
            break
        rows = sentence_sequences([ids[i] for i in chosen], language)
        batch = make_batch("mlm", rows, rows.tokens, np.zeros(rows.tokens.shape, dtype=bool)).to(weight.device)
        states = model.encoder.hidden_states(batch.tokens, batch.positions, batch.languages, batch.lengths, causal)
        for number, x in enumerate(islice(states, layers.start, layers.stop)):  # (B, T, D), zero at padding
            for pooling, place in zip(poolings, vectors):
                place[number, chosen] = pooled(x, batch.lengths, pooling).float().cpu().numpy()
    model.train(was_training)
    return vectors


def by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices, shortest first, in batches of at most BATCH_TOKENS with padding (at least one each)."""
    chosen: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chosen and lengths[index] * (len(chosen) + 1) > BATCH_TOKENS:
            yield chosen
            chosen = []
        chosen.append(index)
    if chosen:
        yield chosen
