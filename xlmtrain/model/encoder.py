"""The Transformer encoder: tokens, positions and languages in, hidden states out.

Letters: B rows, T positions, D width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import torch
from torch import nn

from xlmtrain.config.schema import ModelConfig
from xlmtrain.model.block import LAYER_NORM_EPS, Block
from xlmtrain.model.dropout import Dropout


class Encoder(nn.Module):
    """Sum of token, position and language embeddings, a norm, then ``config.layers`` blocks.

    ``vocab_size``: entries of the vocabulary; ``languages``: how many languages; ``pad``: the padding's id, whose
    embedding starts at zero and gets no gradient from being looked up.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, languages: int, pad: int) -> None:
        super().__init__()
        self.token_embeddings = nn.Embedding(vocab_size, config.dim, padding_idx=pad)
        self.position_embeddings = nn.Embedding(config.max_positions, config.dim)
        # One language needs no mark, and the ancestor's files have none then.
        marked = config.language_embeddings and languages > 1
        self.language_embeddings = nn.Embedding(languages, config.dim) if marked else None
        self.embedding_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self._initialize(config, pad)

    def _initialize(self, config: ModelConfig, pad: int) -> None:
        """Embeddings from N(0, 1/D); linear layers and norms keep torch's own start, which is the ancestor's."""
        for table in (self.token_embeddings, self.position_embeddings, self.language_embeddings):
            if table is not None:
                nn.init.normal_(table.weight, mean=0.0, std=config.dim**-0.5)
        if config.sinusoidal_positions:
            self.position_embeddings.weight.requires_grad_(False)
            self.position_embeddings.weight.copy_(sinusoids(config.max_positions, config.dim))
        with torch.no_grad():
            self.token_embeddings.weight[pad].zero_()

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        languages: torch.Tensor,
        lengths: torch.Tensor | None = None,
        causal: bool = False,
        embedded: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states (B, T, D) for ``tokens``, ``positions``, ``languages`` (B, T).

        ``lengths`` (B,): tokens of each row before its padding, None if no row is padded; hidden states of padding
        are zero. ``causal``: a position sees only itself and what is before it; padding must then be on the right.
        ``embedded`` (B, T, D): the tokens' embeddings, if they have been looked up already.
        """
        return deque(self.states(tokens, positions, languages, lengths, causal, embedded), maxlen=1).pop()

    def states(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        languages: torch.Tensor,
        lengths: torch.Tensor | None = None,
        causal: bool = False,
        embedded: torch.Tensor | None = None,
    ) -> Iterator[torch.Tensor]:
        """The hidden states (B, T, D) before the first block, then after each; arguments as :meth:`forward`'s."""
        if embedded is None:
            embedded = self.token_embeddings(tokens)
        x = embedded + self.position_embeddings(positions)
        if self.language_embeddings is not None:
            x = x + self.language_embeddings(languages)
        x = self.dropout(self.embedding_norm(x))
        visible = kept = None
        if lengths is not None:
            inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
            kept = inside[..., None].to(x.dtype)
            visible = None if causal else inside[:, None, None, :]
            x = x * kept
        yield x
        for block in self.blocks:
            x = block(x, visible, causal)
            if kept is not None:
                x = x * kept
            yield x


def sinusoids(count: int, dim: int) -> torch.Tensor:
    """(count, dim) fixed position vectors: sine at even, cosine at odd columns (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10000.0) / dim))
    angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()
