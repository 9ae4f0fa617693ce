"""Attention weights of every layer and head, for inspection.

Letters: B sequences, T positions, L layers, H heads, K width of a head.
"""

from __future__ import annotations

import torch

from xlmtrain.data.batch import Batch
from xlmtrain.model.block import Block
from xlmtrain.model.language_model import LanguageModel


@torch.no_grad()
def attention_weights(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(K)), (L, B, H, T, T) float32, with a row for each query position.

    Fused attention does not materialize these matrices, so they are recomputed from the hidden states. The batch must
    be bidirectional and without padding.
    """
    assert batch.lengths is None
    assert not batch.causal
    layers = []
    states = model.encoder.hidden_states(batch.tokens, batch.positions, batch.languages)
    for x, block in zip(states, model.encoder.blocks):
        assert isinstance(block, Block)
        size, length, _ = x.shape
        q, k, _ = block.attention.qkv(x).view(size, length, 3, block.attention.heads, -1).permute(2, 0, 3, 1, 4)
        layers.append((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1))
    return torch.stack(layers).float()
