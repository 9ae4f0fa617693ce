"""Twelve steps that the original trained (denoising, translation, back-translation), taken again: loss, norm, weights,
and the sentences that it translated in between."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.support.translation import batch_of, original_names, reference_model, source_of
from xlmtrain.config.data import BackTranslationConfig
from xlmtrain.config.optim import OptimConfig
from xlmtrain.data.batch import Batch
from xlmtrain.generate.back_translation import back_translate
from xlmtrain.generate.greedy import greedy_search
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.optim.optimizer import make_optimizer
from xlmtrain.optim.schedule import learning_rate
from xlmtrain.text.vocab import EOS, PAD

CONFIG = OptimConfig(lr=2e-3, warmup_steps=4, beta2=0.98, eps=1e-6, clip_grad_norm=5.0)


def back_translation(model: TranslationModel, step: dict[str, Any]) -> list[list[int]]:
    """What a step's targets are translated to, with the weights before it."""
    source = source_of(step["target"], step["target_lengths"], int(step["target_langs"][0, 0]))
    limits = torch.full((len(source.tokens),), step["generation_max_len"])
    return [ids.tolist() for ids in greedy_search(model, source, step["generated_language"], limits, False)]


def our_back_translation(model: TranslationModel, batch: Batch, step: dict[str, Any]) -> list[list[int]]:
    """The same in training, where a translation has a limit of its own, and no special tokens."""
    sentences = source_of(step["target"], step["target_lengths"], step["generated_language"])
    made = back_translate(model, replace(batch, source=sentences), BackTranslationConfig(), 0, 0, torch.device("cpu"))
    assert made.source is not None
    return [[i for i in row if i != PAD] for row in made.source.tokens.tolist()]


def test_losses_norms_weights_and_back_translations(translation: dict[str, Any]) -> None:
    model = reference_model(translation)
    optimizer = make_optimizer(CONFIG, model, torch.device("cpu"))
    steps, names = translation["training"]["steps"], translation["parameters"]["names"]
    assert [step["kind"] for step in steps] == ["ae", "ae", "mt", "mt", "bt", "bt"] * 2
    assert {step["lambda"] for step in steps} == {1.0, 0.75}
    largest = 0.0
    for number, step in enumerate(steps):
        if step["kind"] == "bt":
            columns = zip(step["source"].T, step["source_lengths"].tolist())
            expected = [column[:length].tolist() for column, length in columns]
            assert back_translation(model, step) == [ids[1:] for ids in expected]
            limits = [int(1.3 * length + 5) for length in step["target_lengths"].tolist()]
            cut = [i if len(i) <= limit else [*i[: limit - 1], EOS] for i, limit in zip(expected, limits)]
            assert our_back_translation(model, batch_of(step), step) == cut
        batch = batch_of(step)
        assert len(batch.targets) == step["targets"]
        loss = model(batch) / len(batch.targets)
        optimizer.zero_grad()
        (step["lambda"] * loss).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip_grad_norm)
        rate = learning_rate(CONFIG, number, len(steps))
        for group in optimizer.param_groups:  # the original adds eps to the root of the uncorrected second moment
            group.update(lr=rate, eps=CONFIG.eps / math.sqrt(1 - CONFIG.beta2 ** (number + 1)))
        optimizer.step()
        assert loss.item() == pytest.approx(step["loss"], rel=2e-5)
        assert norm.item() == pytest.approx(step["grad_norm"], rel=1e-4)
        assert rate == pytest.approx(step["lr"], rel=1e-9)
        weights = original_names(model.state_dict())
        for name, expected in zip(names, step["sums"], strict=True):
            if "k_lin.bias" in name:
                continue  # their gradients are 0 but for rounding, which Adam makes steps of
            value = weights[name].double()
            found = torch.stack([value.sum(), value.abs().sum()])
            largest = max(largest, ((found - expected).abs() / value.numel() ** 0.5).max().item())
    print(f"largest difference of a sum, per root of its terms: {largest:.1e}")
    assert largest < 1e-6
    for name, expected in translation["training"]["some_weights_after"].items():
        torch.testing.assert_close(weights[name], expected, atol=2e-5, rtol=0)
