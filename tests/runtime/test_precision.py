"""Weights that are cast to half precision once: what is computed under autocast stays the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.tiny import CPU
from xlmtrain.config.train import Precision
from xlmtrain.runtime.precision import autocast, cast_linear_layers


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_cast_layers_compute_what_autocast_does(precision: Precision) -> None:
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Embedding(9, 16), nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 8)),
        torch.arange(9),
    )
    with torch.no_grad(), autocast(precision, CPU):
        expected = model(x)
        weights = [parameter.dtype for parameter in cast_linear_layers(model, precision).parameters()]
        assert torch.equal(model(x), expected)
    linear = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    assert weights == [torch.float32, *[linear] * 2, *[torch.float32] * 2, *[linear] * 2]
