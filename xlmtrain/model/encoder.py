"""The Transformer encoder: tokens, positions and languages in, hidden states out.

Letters: B rows, T positions, D width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import nn

from xlmtrain.config.model import ModelConfig
from xlmtrain.model.attention import AttentionView, RowGroup, local_mask, rotary_positions, take_positions
from xlmtrain.model.block import Block, make_norm
from xlmtrain.model.kernels.dropout import Dropout


class TransformerStack(nn.Module):
    """Embeddings and ``config.layers`` blocks: what the encoder and the decoder have in common.

    The input of the first block is the sum of the family's embeddings (token, position, token type, language),
    normalized. ``vocab_size``: entries of the vocabulary; ``languages``: number of languages; ``pad``: id of the
    padding, whose embedding starts at zero and gets no gradient from being looked up; ``block``: class of the blocks.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        languages: int,
        pad: int,
        block: Callable[[ModelConfig, int], nn.Module],
    ) -> None:
        super().__init__()
        self.config, parts = config, config.parts
        self.token_embeddings = nn.Embedding(vocab_size, config.dim, padding_idx=pad)
        self.first_position = pad + 1 if parts.after_pad else 0
        positions = self.first_position + config.max_positions
        self.position_embeddings = None if parts.rotary else nn.Embedding(positions, config.dim)
        self.token_type_embeddings = nn.Embedding(config.token_types, config.dim) if parts.token_types else None
        # One language needs no embedding, and models of the original XLM have none then.
        multilingual = config.language_embeddings and languages > 1
        self.language_embeddings = nn.Embedding(languages, config.dim) if multilingual else None
        self.embedding_norm = make_norm(config)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(block(config, layer) for layer in range(config.layers))
        self.final_norm = make_norm(config) if parts.pre_norm else None
        self._initialize(config, pad)

    def _initialize(self, config: ModelConfig, pad: int) -> None:
        """Draw embeddings from N(0, 1/D). Linear layers and norms keep torch's initialization, as in the original."""
        tables = (self.token_embeddings, self.position_embeddings, self.language_embeddings, self.token_type_embeddings)
        for table in tables:
            if table is not None:
                nn.init.normal_(table.weight, mean=0.0, std=config.dim**-0.5)
        if config.parts.added_languages and self.language_embeddings is not None:
            nn.init.zeros_(self.language_embeddings.weight)
        if config.sinusoidal_positions and self.position_embeddings is not None:
            self.position_embeddings.weight.requires_grad_(False)
            self.position_embeddings.weight.copy_(sinusoids(config.max_positions, config.dim))
        with torch.no_grad():
            self.token_embeddings.weight[pad].zero_()

    def embed(
        self,
        input_embeds: torch.Tensor,
        positions: torch.Tensor,
        languages: torch.Tensor,
        token_types: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the input of the first block (B, T, D), for token embeddings (B, T, D) and ids (B, T).

        ``token_types`` (B, T): None for type 0; ignored where the family has none.
        """
        x = input_embeds
        if self.position_embeddings is not None:
            x = x + self.position_embeddings(positions + self.first_position)
        if self.token_type_embeddings is not None:
            table = self.token_type_embeddings
            x = x + (table.weight[0] if token_types is None else table(token_types))
        if self.language_embeddings is not None:
            x = x + self.language_embeddings(languages)
        return self.dropout(self.embedding_norm(x))


class Encoder(TransformerStack):
    """Embeddings, then blocks of self-attention; arguments as :class:`TransformerStack`'s."""

    def __init__(self, config: ModelConfig, vocab_size: int, languages: int, pad: int) -> None:
        super().__init__(config, vocab_size, languages, pad, Block)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        languages: torch.Tensor,
        lengths: torch.Tensor | None = None,
        causal: bool = False,
        input_embeds: torch.Tensor | None = None,
        token_types: torch.Tensor | None = None,
        at: torch.Tensor | None = None,
        row_groups: Sequence[tuple[int, int, bool]] = (),
    ) -> torch.Tensor:
        """Return the hidden states (B, T, D) after the last block, for ``tokens``, ``positions``, ``languages`` (B, T).

        ``lengths`` (B,): tokens of each row before its padding, None if no row is padded; hidden states of padding
        are zero. ``causal``: a position attends to itself and the positions before it; padding must then be on the
        right. ``input_embeds`` (B, T, D): embeddings of the tokens, looked up here if None. ``token_types``: as in
        :meth:`embed`. ``at`` (N,): indices into the flattened (B T) positions of the
        states that are needed; after its attention, the last block computes these alone, and the result is (N, D).
        ``row_groups``: rows, length and whether there is padding, of groups of rows that are concatenated into one (B
        is 1); ``lengths`` are then those of the rows in them, and a position attends to its own row.
        """
        states = self.hidden_states(
            tokens, positions, languages, lengths, causal, input_embeds, token_types, at, row_groups
        )
        return deque(states, maxlen=1).pop()

    def hidden_states(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        languages: torch.Tensor,
        lengths: torch.Tensor | None = None,
        causal: bool = False,
        input_embeds: torch.Tensor | None = None,
        token_types: torch.Tensor | None = None,
        at: torch.Tensor | None = None,
        row_groups: Sequence[tuple[int, int, bool]] = (),
    ) -> Iterator[torch.Tensor]:
        """Yield the hidden states (B, T, D) before the first block, then after each; arguments as :meth:`forward`'s.

        With ``at``, those after the last block are (N, D).
        """
        if input_embeds is None:
            input_embeds = self.token_embeddings(tokens)
        x = self.embed(input_embeds, positions, languages, token_types)
        shapes = row_groups or [(len(tokens), tokens.shape[1], lengths is not None)]
        groups = [RowGroup(rows, length) for rows, length, _ in shapes]
        token_mask = None
        if lengths is not None:
            of_groups = lengths.split([group.rows for group in groups])
            valid = [length_mask(own, group.length) for own, group in zip(of_groups, groups)]
            token_mask = torch.cat([mask.flatten() for mask in valid]).view_as(tokens)[..., None].to(x.dtype)
            groups = [
                group._replace(key_mask=mask[:, None, None, :]) if padded and not causal else group
                for group, mask, (_, _, padded) in zip(groups, valid, shapes)
            ]
            x = x * token_mask
        yield x
        views = self.attention_views(positions, groups, causal)
        for number, block in enumerate(self.blocks, 1):
            last = number == len(self.blocks)
            x = block(x, views[cast("Block", block).local], at if last else None)
            if self.final_norm is not None and last:
                x = self.final_norm(x)
            if token_mask is not None:
                x = x * take_positions(token_mask, at if last else None)
            yield x

    def attention_views(
        self, positions: torch.Tensor, groups: Sequence[RowGroup], causal: bool
    ) -> dict[bool, AttentionView]:
        """Return the view of the blocks that attend to all positions, False, and of the local ones, True.

        ``positions``: (B, T). ``groups``: one of its B rows, or those that are concatenated into one row; their masks,
        (rows, 1, 1, length) bool, are the tokens that are not padding, or None for all.
        """
        config, size = self.config, self.config.dim // self.config.heads

        def view(groups: Sequence[RowGroup], causal: bool, theta: float) -> AttentionView:
            rotation = rotary_positions(positions, size, theta) if config.parts.rotary else None
            if len(groups) == 1:
                return AttentionView(groups[0].key_mask, causal, rotation)
            return AttentionView(None, causal, rotation, tuple(groups))

        views = {False: view(groups, causal, config.rope_theta)}
        if config.parts.local:
            masks = [local_mask(group, config.local_attention, causal, positions.device) for group in groups]
            near = [group._replace(key_mask=mask) for group, mask in zip(groups, masks)]
            views[True] = view(near, False, config.local_rope_theta)
        return views


def length_mask(lengths: torch.Tensor, count: int) -> torch.Tensor:
    """Return (B, count) bool: True for positions within the ``lengths`` (B,) of their rows."""
    return torch.arange(count, device=lengths.device) < lengths[:, None]


def sinusoids(count: int, dim: int) -> torch.Tensor:
    """Return (count, dim) fixed position vectors: sine at even, cosine at odd columns (Vaswani et al. 2017, 3.5)."""
    frequency = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10000.0) / dim))
    angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()
