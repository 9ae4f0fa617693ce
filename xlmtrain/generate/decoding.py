"""Parts that greedy search, sampling and beam search share.

Letters: B sentences, R prefixes, V vocabulary, W tokens of the longest translation and its ``</s>``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

_CHUNK = 64
"""Tokens whose maximum is searched first."""


def max_target_lengths(lengths: torch.Tensor, longest: int, ratio: float = 1.3, extra: int = 5) -> torch.Tensor:
    """Return the most tokens of each translation, (B,): int(``ratio`` * length + ``extra``), at most ``longest``.

    ``lengths`` (B,): tokens of the sources. Both ``</s>`` count on both sides. The limit of a sentence depends on no
    other, so its translation does not either. Defaults are those of the original's back-translation.
    """
    return (ratio * lengths.double() + extra).clamp(max=longest).long()


def suppress_special_tokens(scores: torch.Tensor, special: torch.Tensor) -> torch.Tensor:
    """Set the scores (R, V) of the ``special`` tokens, all but ``</s>``, to -inf in place, and return them."""
    return scores.index_fill_(1, special, -torch.inf)


def top_tokens(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values and tokens of the ``count`` largest scores (R, V) of each row, the largest first, (R, count).

    They are in the chunks with the ``count`` largest maxima, which torch finds much faster than an argmax or topk.
    """
    padding = -scores.shape[1] % _CHUNK
    padded = F.pad(scores, (0, padding), value=-torch.inf) if padding else scores
    chunks = padded.unflatten(1, (-1, _CHUNK))
    best = chunks.amax(dim=2).topk(min(count, chunks.shape[1])).indices
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    top = chunks[rows, best].flatten(1).topk(count)
    tokens = best.gather(1, top.indices // _CHUNK) * _CHUNK + top.indices % _CHUNK
    return top.values, tokens.clamp(max=scores.shape[1] - 1)  # -inf may have been found in the padding


def up_to_eos(tokens: torch.Tensor, eos: int) -> list[np.ndarray]:
    """Return each row of ``tokens`` (B, W) up to its first ``</s>``, and with it."""
    ends = (tokens == eos).int().argmax(dim=1).tolist()
    return [row[: end + 1] for row, end in zip(tokens.cpu().numpy(), ends)]
