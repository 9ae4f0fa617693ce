"""The Transformer decoder: causal self-attention, then attention to the source, in every block.

Letters: B rows, T positions, S positions of the source, D width, L layers, H heads, K = D / H. While translations are
generated: N sentences, P prefixes of each one's translation.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from xlmtrain.config.model import ModelConfig
from xlmtrain.model.attention import AttentionView, CrossAttention, SelfAttention
from xlmtrain.model.block import FeedForward, make_norm
from xlmtrain.model.encoder import TransformerStack, length_mask
from xlmtrain.model.kernels.dropout import Dropout


class DecoderBlock(nn.Module):
    """Self-attention, attention to the source, feed-forward: each with dropout, a residual connection, and a norm."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = make_norm(config)
        self.cross_attention = CrossAttention(config)
        self.cross_attention_norm = make_norm(config)
        self.ffn = FeedForward(config)
        self.ffn_norm = make_norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: torch.Tensor, source: torch.Tensor, source_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D), for hidden states ``source`` (B, S, D); ``source_mask``: (B, 1, 1, S) bool."""
        x = self.attention_norm(x + self.dropout(self.attention(x, AttentionView(causal=True))))
        return self._with_source(x, self.cross_attention(x, source, source_mask))

    def step(self, x: torch.Tensor, cache: DecoderCache, layer: int) -> torch.Tensor:
        """Return the outputs (N, P, D) at the position that follows the cached ones, for its inputs ``x`` (N, P, D)."""
        prefixes = cache.length * x.shape[1]
        x = self.attention_norm(x + self.attention.step(x, cache.prefixes[layer], prefixes, cache.prefix_mask()))
        return self._with_source(x, self.cross_attention.step(x, cache.source[layer], cache.source_mask))

    def _with_source(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Return the output of the block for ``x`` after self-attention and what it ``attended`` to in the source."""
        x = self.cross_attention_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class DecoderCache:
    """KV cache: keys and values of the prefixes and of their sources.

    The P prefixes of a sentence share one sequence of keys: P tokens of position 0, then P of position 1, and so on. A
    mask per prefix selects its own tokens, so that reordering the prefixes copies no keys.

    ``prefixes``: (L, 2, N, H, T P, K), of which the first ``length`` of T positions are filled. ``members``:
    (N, P, T, P) bool, the tokens of each prefix. ``source``: (L, 2, N, H, S, K). ``source_mask``: (N, 1, 1, S) bool.
    """

    def __init__(self, source: torch.Tensor, source_mask: torch.Tensor, per_sentence: int, positions: int) -> None:
        layers, _, sentences, heads, _, size = source.shape
        self.prefixes = source.new_empty(layers, 2, sentences, heads, positions * per_sentence, size)
        own = torch.eye(per_sentence, dtype=torch.bool, device=source.device)[:, None]
        self.members = own.expand(sentences, -1, positions, -1).contiguous()
        self.source, self.source_mask, self.length = source, source_mask, 0

    def prefix_mask(self) -> torch.Tensor | None:
        """Return (N, 1, P, (length + 1) P) bool: the tokens of each prefix up to the next; None if P is 1."""
        return self.members[:, None, :, : self.length + 1].flatten(3) if self.members.shape[1] > 1 else None

    def reorder(self, parents: torch.Tensor) -> None:
        """Let each prefix continue one of the earlier ones of its sentence, ``parents`` (N, P)."""
        rows = torch.arange(len(parents), device=parents.device)[:, None]
        self.members[:, :, : self.length] = self.members[rows, parents, : self.length]

    def drop(self, finished: torch.Tensor) -> torch.Tensor:
        """Remove sentences that are ``finished``, (N,) bool; return the old index of each that is left, (N',).

        The last ones are moved into the gaps, so that few have to be copied.
        """
        count, left = int((~finished).sum()), torch.arange(len(finished), device=finished.device)
        if count == len(finished):
            return left
        gaps, movers = left[:count][finished[:count]], left[count:][~finished[count:]]
        filled = self.length * self.members.shape[1]
        self.prefixes[:, :, gaps, :, :filled] = self.prefixes[:, :, movers, :, :filled]
        self.source[:, :, gaps] = self.source[:, :, movers]
        self.members[gaps], self.source_mask[gaps] = self.members[movers], self.source_mask[movers]
        self.prefixes, self.source = self.prefixes[:, :, :count], self.source[:, :, :count]
        self.members, self.source_mask = self.members[:count], self.source_mask[:count]
        return left[:count].index_copy(0, gaps, movers)


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
        """Append a token, ``input_embeds`` (N, P, D), to each prefix; return the hidden states there, (N, P, D)."""
        position = torch.full((1, 1), cache.length, device=input_embeds.device)
        x = self.embed(input_embeds, position, torch.full_like(position, language))
        for layer, block in enumerate(self._layers):
            x = block.step(x, cache, layer)
        cache.length += 1
        return x


def source_key_mask(lengths: torch.Tensor, count: int) -> torch.Tensor:
    """Return (B, 1, 1, count) bool: the positions of the source that may be attended to."""
    return length_mask(lengths, count)[:, None, None]
