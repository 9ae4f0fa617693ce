"""Six steps that the original trained, taken again by our step: loss, gradient norm, clipping, rate, weights.

Two things differ by design: the original adds Adam's eps to the root of the uncorrected second moment, and decays all
weights, while ours spares biases, norms and embeddings. The first test sets both as the original has them and finds its
weights again; the second leaves them ours and shows how little that is.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.oracle import as_batch
from tests.support.tiny import ALONE, CPU, tiny_config
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.loader import StepBatches
from xlmtrain.interop.xlm.conversion import from_xlm_state_dict
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.train.parallel import ParallelModel
from xlmtrain.train.step import TrainStep

SETTINGS = {
    "optim.lr": 2e-3,
    "optim.warmup_steps": 4,
    "optim.beta2": 0.98,
    "optim.eps": 1e-6,
    "optim.weight_decay": 0.01,
    "optim.clip_grad_norm": 5.0,
}


def settings() -> Config:
    config = tiny_config("run", "data", SETTINGS)
    config.model = ModelConfig(dim=64, layers=2, heads=4, dropout=0.0, attention_dropout=0.0)
    return config


def train(reference: dict[str, Any], as_original: bool) -> tuple[list[tuple[float, float, float]], LanguageModel]:
    """(loss, gradient norm, learning rate) of each step, and the model after them."""
    config = settings()
    model = LanguageModel(config.model, 200, 2)
    model.load_state_dict(from_xlm_state_dict(reference["state_dict"]))
    optimizer = make_optimizer(config.optim, model, CPU)
    train_step = TrainStep(config, ParallelModel(model), optimizer, Precision.fp32, ALONE)
    found = []
    for number, step in enumerate(reference["training"]["steps"]):
        if as_original:
            for group in optimizer.param_groups:
                group["eps"] = config.optim.eps / math.sqrt(1 - config.optim.beta2 ** (number + 1))
                group["weight_decay"] = config.optim.weight_decay
        batch = as_batch(step, causal=False)
        data = StepBatches(number, [batch], {"mlm": 1.0}, [], {})
        result = train_step(data, [float(len(batch.targets)), 0.0, 0.0])
        loss = result.losses.sum().item() / len(batch.targets)
        found.append((loss, result.grad_norm.item(), result.learning_rate))
    return found, model


@pytest.mark.parametrize("as_original", [True, False])
def test_losses_norms_and_rates(reference: dict[str, Any], as_original: bool) -> None:
    found, _ = train(reference, as_original)
    assert any(norm > 5 for _, norm, _ in found)  # clipping acts
    assert {step["langs_of_step"] for step in reference["training"]["steps"]} == {"de", "en", "de-en", "en-de"}
    tolerance = 5e-7 if as_original else 1e-4
    for ours, step in zip(found, reference["training"]["steps"], strict=True):
        assert ours[0] == pytest.approx(step["loss"], rel=tolerance)
        assert ours[1] == pytest.approx(step["grad_norm"], rel=5 * tolerance)
        assert ours[2] == pytest.approx(step["lr"], rel=1e-9)


def test_weights_after_them(reference: dict[str, Any]) -> None:
    """Not to the last digit: Adam divides by the root of the second moment, which blows up roundings of gradients that
    are almost zero. The steps themselves move weights by up to 8e-3."""
    expected = from_xlm_state_dict(reference["training"]["state_dict_after"])
    start = from_xlm_state_dict(reference["state_dict"])
    for as_original, tolerance in ((True, 5e-6), (False, 5e-4)):
        _, model = train(reference, as_original)
        for name, value in model.state_dict().items():
            assert (value - expected[name]).abs().max().item() < tolerance, name
    assert max((expected[name] - start[name]).abs().max().item() for name in expected) > 5e-3
