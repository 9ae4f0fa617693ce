"""What is nearest to what, exactly, in blocks that fit into memory.

Letters: N queries, M answers, B queries of a block, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from xlmtrain.errors import NumericalError

BLOCK_ENTRIES = 1 << 24
"""Similarities that are in memory together."""


def unit_vectors(vectors: np.ndarray | torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """``vectors`` (N, D) at length 1 in float32; a vector of zeros stays one.

    Raises NumericalError if one is not finite: comparisons with nan are all false, so it would seem to be the best.
    """
    tensor = torch.as_tensor(vectors).to(device, torch.float32)
    if not tensor.isfinite().all():
        raise NumericalError("a vector of the model is not finite, so nothing can be near to it")
    return torch.nn.functional.normalize(tensor, dim=1)


def similarities(queries: torch.Tensor, answers: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks of queries (N, D), each as a slice and its cosines (B, M) with all of the ``answers`` (M, D)."""
    rows = max(BLOCK_ENTRIES // max(len(answers), 1), 1)
    for first in range(0, len(queries), rows):
        block = slice(first, min(first + rows, len(queries)))
        yield block, queries[block] @ answers.T


def mean_of_nearest(
    queries: torch.Tensor,
    answers: torch.Tensor,
    k: int,
    own: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Mean cosine (N,) of each query with the ``k`` answers nearest to it, or with all if there are fewer.

    ``own``: ids of the queries (N,) and answers (M,); an answer with the query's id is the same thing, and left out.
    """
    means = torch.empty(len(queries), device=queries.device)
    for block, cosines in similarities(queries, answers):
        if own is not None:
            cosines.masked_fill_(own[0][block, None] == own[1], -torch.inf)
        best = cosines.topk(min(k, len(answers)), dim=1).values
        there = best.isfinite()
        means[block] = best.where(there, 0.0).sum(dim=1) / there.sum(dim=1).clamp(min=1)
    return means


def ranks(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Rank (B,) from 1 of the best right answer of each query: ``scores`` (B, M), ``right`` (B, M) bool.

    It is one more than the wrong answers that score as well or better. Other right answers do not stand in its way,
    while a model that finds everything alike has found nothing. Every query must have a right answer.
    """
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores >= best) & ~right).sum(dim=1)
