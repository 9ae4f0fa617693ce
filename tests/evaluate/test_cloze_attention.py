"""Attention weights are those that the forward pass uses without ever making them."""

from __future__ import annotations

import numpy as np
import torch

from xlmtrain.config.model import ModelConfig
from xlmtrain.data.batch import make_batch
from xlmtrain.data.sequences import pair_sequences
from xlmtrain.evaluate.cloze import attention_weights
from xlmtrain.model.language_model import LanguageModel


def test_weights_give_the_layers_own_output() -> None:
    torch.manual_seed(0)
    model = LanguageModel(
        ModelConfig(dim=16, layers=3, heads=4, max_positions=16, dropout=0, attention_dropout=0), 30, 2
    )
    model.eval()
    rows = pair_sequences([np.array([20, 21, 1])], [np.array([25, 26, 27, 1])], (0, 1))
    batch = make_batch("mlm", rows, rows.tokens, rows.tokens == 21)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for block in model.encoder.blocks:
        block.attention.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    with torch.no_grad():
        model.encoder(batch.tokens, batch.positions, batch.languages, batch.lengths)
    weights = attention_weights(model, batch)
    assert weights.shape == (3, 1, 4, 9, 9)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 1, 4, 9))
    for block, (given, made), of_layer in zip(model.encoder.blocks, seen, weights):
        value = block.attention.qkv(given)[..., 32:].view(1, 9, 4, 4).transpose(1, 2)
        mixed = (of_layer @ value).transpose(1, 2).reshape(1, 9, 16)
        torch.testing.assert_close(block.attention.out(mixed), made, rtol=1e-4, atol=1e-5)
