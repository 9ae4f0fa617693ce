"""The model beyond parity: gradients that add up, the padding, weights that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from xlmtrain.config.model import ModelConfig
from xlmtrain.data.batch import Batch
from xlmtrain.errors import CheckpointError
from xlmtrain.model.language_model import LanguageModel, check_state_dict
from xlmtrain.text.vocab import PAD

WORDS, DIM = 50, 16


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_add_up_over_batches(tied: bool) -> None:
    torch.manual_seed(0)
    config = ModelConfig(dim=DIM, layers=1, heads=2, max_positions=8, dropout=0.0, tie_embeddings=tied)
    model = LanguageModel(config, WORDS, 2)
    tokens = torch.randint(14, WORDS, (3, 8))
    batch = Batch("mlm", tokens, torch.arange(8).expand(3, 8), 0 * tokens, None, torch.tensor([1, 9]), tokens[0, :2])
    model.eval()
    model(batch).backward()
    once = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model(batch).backward()
    F.cross_entropy(model.logits(batch), batch.targets, reduction="sum").backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 3 * once[name], atol=1e-5, rtol=1e-5)


def test_padding_is_the_vocabularys() -> None:
    """The model knows no vocabulary, but its default is the id that every vocabulary has for the padding."""
    embedding = LanguageModel(ModelConfig(dim=DIM, layers=1, heads=2), WORDS, 2).encoder.token_embeddings
    assert embedding.padding_idx == PAD
    assert embedding.weight[PAD].count_nonzero() == 0
    assert embedding.weight[PAD + 1].count_nonzero() == DIM


def test_a_state_dict_that_does_not_fit_is_named() -> None:
    config = ModelConfig(dim=DIM, layers=1, heads=2)
    weights = LanguageModel(config, WORDS, 2).state_dict()
    check_state_dict(LanguageModel(config, WORDS, 2), weights, "here")
    with pytest.raises(CheckpointError, match=r"here: does not fit the model: encoder\.token_embeddings\.weight is"):
        check_state_dict(LanguageModel(config, WORDS + 1, 2), {**weights, "head.bias": torch.zeros(WORDS + 1)}, "here")
