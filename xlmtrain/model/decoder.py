"""The Transformer decoder: causal self-attention, then attention to the source, in every block.

Letters: B rows, T positions, S positions of the source, D width, L layers, H heads, K = D / H. While translations are
generated: N sentences, R prefixes of translations, as many of each sentence and side by side.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from xlmtrain.config.schema import ModelConfig
from xlmtrain.model.attention import CrossAttention, SelfAttention
from xlmtrain.model.block import LAYER_NORM_EPS, FeedForward
from xlmtrain.model.encoder import TransformerStack, length_mask
from xlmtrain.model.kernels.dropout import Dropout


class DecoderBlock(nn.Module):
    """Self-attention, attention to the source, feed-forward: each with dropout, a residual connection, and a norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.dim, config.heads, config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.cross_attention = CrossAttention(config.dim, config.heads, config.attention_dropout)
        self.cross_attention_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.ffn = FeedForward(config.dim, config.activation)
        self.ffn_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: torch.Tensor, source: torch.Tensor, source_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D), for hidden states ``source`` (B, S, D); ``source_mask``: (B, 1, 1, S) bool."""
        x = self.attention_norm(x + self.dropout(self.attention(x, None, True)))
        return self._after_self_attention(x, self.cross_attention.keys_values(source), source_mask)

    def step(self, x: torch.Tensor, cache: DecoderCache, layer: int) -> torch.Tensor:
        """Return the output (R, 1, D) at the position that follows the cached ones, for its input ``x`` (R, 1, D)."""
        x = self.attention_norm(x + self.attention.step(x, cache.prefixes[layer], cache.length))
        # To attention to the source, the prefixes of one sentence are so many positions of one target.
        by_sentence = x.view(cache.source.shape[2], -1, x.shape[2])
        return self._after_self_attention(by_sentence, cache.source[layer], cache.source_mask).view(x.shape)

    def _after_self_attention(
        self, x: torch.Tensor, keys_values: torch.Tensor, source_mask: torch.Tensor | None
    ) -> torch.Tensor:
        x = self.cross_attention_norm(x + self.dropout(self.cross_attention(x, keys_values, source_mask)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class DecoderCache:
    """Keys and values of the prefixes and of their sources.

    ``prefixes``: (L, 2, R, H, T, K), of which the first ``length`` of T positions are filled. ``source``:
    (L, 2, N, H, S, K). ``source_mask``: (N, 1, 1, S) bool.
    """

    def __init__(self, source: torch.Tensor, source_mask: torch.Tensor, per_sentence: int, positions: int) -> None:
        layers, _, sentences, heads, _, size = source.shape
        self.prefixes = source.new_empty(layers, 2, sentences * per_sentence, heads, positions, size)
        self.source, self.source_mask, self.length = source, source_mask, 0

    def reorder(self, rows: torch.Tensor) -> None:
        """Let the prefixes be those of ``rows``, indices into R that stay within their sentence."""
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        filled = self.prefixes[..., : self.length, :]
        for layer in filled:
            layer[:, moved] = layer[:, rows[moved]]

    def drop(self, finished: torch.Tensor) -> torch.Tensor:
        """Remove sentences that are ``finished``, (N,) bool; return the old index of each that is left, (N',).

        The last ones are moved into the gaps, so that few have to be copied.
        """
        count, left = int((~finished).sum()), torch.arange(len(finished), device=finished.device)
        if count == len(finished):
            return left
        gaps = left[:count][finished[:count]]
        movers = left[count:][~finished[count:]]
        left = left[:count].index_copy(0, gaps, movers)
        by_sentence = self.prefixes.unflatten(2, (len(finished), -1))
        by_sentence[:, :, gaps, ..., : self.length, :] = by_sentence[:, :, movers, ..., : self.length, :]
        self.source[:, :, gaps] = self.source[:, :, movers]
        self.source_mask[gaps] = self.source_mask[movers]
        self.prefixes = by_sentence[:, :, :count].flatten(2, 3)
        self.source, self.source_mask = self.source[:, :, :count], self.source_mask[:count]
        return left


class Decoder(TransformerStack):
    """Embeddings, then blocks that attend to the source, too; arguments as :class:`TransformerStack`'s."""

    def __init__(self, config: ModelConfig, vocab_size: int, languages: int, pad: int) -> None:
        super().__init__(config, vocab_size, languages, pad, DecoderBlock)

    def forward(
        self,
        input_embeds: torch.Tensor,
        positions: torch.Tensor,
        languages: torch.Tensor,
        lengths: torch.Tensor | None,
        source: torch.Tensor,
        source_lengths: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the hidden states (B, T, D) after the last block.

        ``input_embeds`` (B, T, D), ``positions``, ``languages`` (B, T), ``lengths`` (B,): of the target, whose
        positions attend to themselves and those before them. ``source`` (B, S, D), ``source_lengths`` (B,): of the
        source, all of which they attend to. Lengths are None without padding; its hidden states are zero.
        """
        x = self.embed(input_embeds, positions, languages)
        valid = None if lengths is None else length_mask(lengths, x.shape[1])[..., None].to(x.dtype)
        source_mask = None if source_lengths is None else source_key_mask(source_lengths, source.shape[1])
        if valid is not None:
            x = x * valid
        for block in self.blocks:
            x = block(x, source, source_mask)
            if valid is not None:
                x = x * valid
        return x

    @property
    def _layers(self) -> list[DecoderBlock]:
        return cast("list[DecoderBlock]", list(self.blocks))

    def start(self, source: torch.Tensor, lengths: torch.Tensor, per_sentence: int, positions: int) -> DecoderCache:
        """Return a cache for ``per_sentence`` prefixes of up to ``positions`` tokens of each sentence.

        ``source``: its hidden states (N, S, D), ``lengths`` (N,).
        """
        keys_values = torch.stack([block.cross_attention.keys_values(source) for block in self._layers])
        return DecoderCache(keys_values, source_key_mask(lengths, source.shape[1]), per_sentence, positions)

    def step(self, input_embeds: torch.Tensor, language: int, cache: DecoderCache) -> torch.Tensor:
        """Append a token, ``input_embeds`` (R, D), to each prefix; return the hidden states (R, D) at its position."""
        position = torch.full((1, 1), cache.length, device=input_embeds.device)
        x = self.embed(input_embeds[:, None], position, torch.full_like(position, language))
        for layer, block in enumerate(self._layers):
            x = block.step(x, cache, layer)
        cache.length += 1
        return x[:, 0]


def source_key_mask(lengths: torch.Tensor, count: int) -> torch.Tensor:
    """Return (B, 1, 1, count) bool: the positions of the source that may be attended to."""
    return length_mask(lengths, count)[:, None, None]
