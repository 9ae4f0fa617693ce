"""Exact nearest neighbours by cosine, in blocks that fit into memory.

Letters: N queries, M candidates, B queries of a block, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from xlmtrain.errors import NumericalError

BLOCK_ENTRIES = 1 << 24
"""Cosines held in memory at a time."""


def unit_vectors(vectors: np.ndarray | torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return ``vectors`` (N, D) scaled to length 1 in float32; zero vectors stay zero.

    Raises NumericalError for values that are not finite, because comparisons with nan would rank them first.
    """
    tensor = torch.as_tensor(vectors).to(device, torch.float32)
    if not tensor.isfinite().all():
        raise NumericalError("a vector of the model is not finite, so nothing can be near to it")
    return torch.nn.functional.normalize(tensor, dim=1)


def similarities(queries: torch.Tensor, candidates: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield blocks of ``queries`` (N, D) as (slice, cosines (B, M) with all ``candidates`` (M, D))."""
    size = max(BLOCK_ENTRIES // max(len(candidates), 1), 1)
    for first in range(0, len(queries), size):
        block = slice(first, min(first + size, len(queries)))
        yield block, queries[block] @ candidates.T


def mean_of_nearest(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    k: int,
    own: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the mean cosine (N,) of each query with its ``k`` nearest candidates, or with all if there are fewer.

    ``own``: ids of queries (N,) and candidates (M,); a candidate with the query's id is left out.
    """
    means = torch.empty(len(queries), device=queries.device)
    for block, cosines in similarities(queries, candidates):
        if own is not None:
            cosines.masked_fill_(own[0][block, None] == own[1], -torch.inf)
        best = cosines.topk(min(k, len(candidates)), dim=1).values
        valid = best.isfinite()
        means[block] = best.where(valid, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)
    return means


def ranks(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the rank (B,) from 1 of each query's best right candidate; ``scores`` (B, M), ``right`` (B, M) bool.

    The rank is 1 plus the number of wrong candidates with the same or a higher score. So other right candidates do
    not count, and a model with equal scores for all candidates finds nothing. Every query needs a right candidate.
    """
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores >= best) & ~right).sum(dim=1)
