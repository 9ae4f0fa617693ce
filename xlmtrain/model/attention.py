"""Multi-head attention: of a sequence to itself, and of a target to its source.

Letters: B rows, T positions, S positions of the source, D width, H heads, K = D / H.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from xlmtrain.config.model import ModelConfig
from xlmtrain.model.kernels.attention import attention
from xlmtrain.model.kernels.rotary import rotate


class RowGroup(NamedTuple):
    """Rows of the same length, and their ``key_mask`` as in :class:`AttentionView`."""

    rows: int
    length: int
    key_mask: torch.Tensor | None = None


class AttentionView(NamedTuple):
    """The positions that a position attends to.

    ``key_mask``: bool, True for a key that may be attended to; (B, 1, 1, T), or (B or 1, 1, T, T) for each query by
    itself; None for all. ``causal``: only to itself and the positions before it; ``key_mask`` is then ignored.
    ``rotation``: the rotary positions, from :func:`rotary_positions`. ``groups``: those of which the rows are
    concatenated into one (B is 1, T counts all positions), with a mask each in place of ``key_mask``; a position then
    attends to its own row. Empty if no rows are.
    """

    key_mask: torch.Tensor | None = None
    causal: bool = False
    rotation: torch.Tensor | None = None
    groups: tuple[RowGroup, ...] = ()


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(K)) v over H heads, then a projection (Vaswani et al. 2017, section 3.2).

    One matrix makes queries, keys and values: its rows are those of q, then k, then v.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, biases = config.dim, config.parts.biases
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=biases)
        self.out = nn.Linear(dim, dim, bias=biases)

    def project(self, x: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
        """Return queries, keys and values, (B, T, 3 D), of ``x`` (B, T, D)."""
        qkv: torch.Tensor = self.qkv(x)
        return qkv if rotation is None else rotate(qkv, self.heads, rotation)

    def forward(self, x: torch.Tensor, view: AttentionView, at: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D), or (N, D) at the positions ``at``; see :func:`take_positions`."""
        mixed = self._mix(self.project(x, view.rotation), view)
        return self.out(take_positions(mixed, at))

    def _mix(self, qkv: torch.Tensor, view: AttentionView) -> torch.Tensor:
        """Return the values (B, T, D), weighted, of ``qkv`` (B, T, 3 D)."""
        rate = self.dropout if self.training else 0.0
        if not view.groups:
            return attention(qkv, None, self.heads, view.key_mask, view.causal, rate)
        parts = qkv[0].split([rows * length for rows, length, _ in view.groups])
        mixed = [
            attention(part.unflatten(0, (rows, length)), None, self.heads, key_mask, view.causal, rate).flatten(0, 1)
            for part, (rows, length, key_mask) in zip(parts, view.groups)
        ]
        return torch.cat(mixed)[None]

    def step(self, x: torch.Tensor, cache: torch.Tensor, filled: int, key_mask: torch.Tensor | None) -> torch.Tensor:
        """Return the outputs (B, T, D) of ``x`` (B, T, D), the next T positions, after ``filled`` earlier ones.

        ``cache``: (2, B, H, capacity, K), keys and values of the earlier positions; those of the new ones are added.
        ``key_mask``: (B, 1, T, filled + T) bool, keys that may be attended to, or None for all.
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        end = filled + x.shape[1]
        cache[0, :, :, filled:end], cache[1, :, :, filled:end] = k, v
        keys, values = cache[:, :, :, :end]
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=key_mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention with queries from the target, keys and values from the source's last hidden states.

    One matrix makes keys and values: its rows are those of k, then v.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, source: torch.Tensor, source_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D). ``source``: (B, S, D). ``source_mask``: (B, 1, 1, S) bool, its positions that may be
        attended to, or None for all."""
        rate = self.dropout if self.training else 0.0
        return self.out(attention(self.query(x), self.key_value(source), self.heads, source_mask, False, rate))

    def keys_values(self, source: torch.Tensor) -> torch.Tensor:
        """Return keys and values, (2, B, H, S, K), of ``source`` (B, S, D), for :meth:`step`."""
        return self.key_value(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def step(self, x: torch.Tensor, keys_values: torch.Tensor, source_mask: torch.Tensor | None) -> torch.Tensor:
        """Return what :meth:`forward` returns, without dropout, for ``keys_values`` (2, B, H, S, K) of the source."""
        q = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, T, K)
        keys, values = keys_values
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=source_mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


def take_positions(x: torch.Tensor, at: torch.Tensor | None) -> torch.Tensor:
    """Return (N, D), the states of ``x`` (B, T, D) at ``at`` (N,), indices into the flattened (B T) positions.

    None: return ``x`` itself.
    """
    return x if at is None else x.flatten(0, 1).index_select(0, at)


def rotary_positions(positions: torch.Tensor, size: int, theta: float) -> torch.Tensor:
    """Return cosines and sines, (2, B, T, 1, 1, size / 2) fp32, of ``positions`` (B, T) times theta^(-2 i / size)."""
    exponent = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size
    angle = positions[..., None, None, None].float() * (1.0 / theta**exponent)
    return torch.stack([angle.cos(), angle.sin()])


def local_mask(rows: RowGroup, window: int, causal: bool, device: torch.device) -> torch.Tensor:
    """Return (B or 1, 1, T, T) bool: the keys of the mask of ``rows`` that are at most ``window`` / 2 tokens away.

    ``causal``: and not after the query; no mask is needed.
    """
    places, key_mask = torch.arange(rows.length, device=device), rows.key_mask
    distance = places[:, None] - places
    near = (distance.abs() <= window // 2) & ((distance >= 0) | (not causal))
    return near[None, None] if key_mask is None or causal else near & key_mask
