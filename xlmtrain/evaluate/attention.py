"""What each position looks at: attention weights, layer by layer.

Letters: B rows, T positions, D width, L layers, H heads, K = D / H.
"""

from __future__ import annotations

import torch

from xlmtrain.data.batch import Batch
from xlmtrain.model.block import Block
from xlmtrain.model.language_model import LanguageModel


@torch.no_grad()
def attention_weights(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """softmax(q k^T / sqrt(K)) of every layer and head, (L, B, H, T, T) float32, a row for each position that looks.

    The forward pass never makes these matrices, so they are made again from its states. For batches without padding.
    """
    assert batch.lengths is None
    assert not batch.causal
    layers = []
    states = model.encoder.hidden_states(batch.tokens, batch.positions, batch.languages)
    for x, block in zip(states, model.encoder.blocks):
        assert isinstance(block, Block)
        rows, length, _ = x.shape
        q, k, _ = block.attention.qkv(x).view(rows, length, 3, block.attention.heads, -1).permute(2, 0, 3, 1, 4)
        layers.append((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1))
    return torch.stack(layers).float()
