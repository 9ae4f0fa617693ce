"""Muon for the blocks' matrices: its step, what AdamW keeps, exact resume, and what it is refused with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.tiny import tiny_config
from tests.support.training import assert_same_run, records, train_alone
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.optim import FusedAdam, OptimConfig, OptimizerName
from xlmtrain.config.train import Sharding
from xlmtrain.errors import ConfigError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer

MUON = {"optim.name": OptimizerName.muon, "optim.weight_decay": 0.1}
CPU = torch.device("cpu")


def test_matrices_take_orthogonal_steps_and_all_else_those_of_adamw() -> None:
    """Without momentum and decay: the singular values of an update are alike, its mean square is 0.2 of the rate."""
    models = []
    for name in OptimizerName:
        torch.manual_seed(0)
        model = LanguageModel(ModelConfig(dim=32, layers=2, heads=2, max_positions=16), 50, 2)
        before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
        optimizer = make_optimizer(OptimConfig(name=name, momentum=0.0, lr=1e-4), model, CPU)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2
        for weight in model.parameters():
            weight.grad = torch.randn_like(weight)
        optimizer.step()
        models.append({key: weight.detach() - before[key] for key, weight in model.named_parameters()})
    adamw, muon = models
    changed = {key for key in muon if not torch.equal(muon[key], adamw[key])}
    assert changed == {key for key, change in muon.items() if "blocks" in key and change.dim() == 2}
    assert len(changed) == 2 * 4
    for key in changed:
        values = torch.linalg.svdvals(muon[key])
        assert values.max() < 2.5 * values.min(), key
        assert muon[key].square().mean().sqrt() == pytest.approx(0.2 * 1e-2, rel=0.3), key


def test_a_run_learns_and_resumes_exactly(tiny_dataset: Path, tmp_path: Path) -> None:
    straight = tiny_config(tmp_path / "straight", tiny_dataset, MUON)
    train_alone(straight)
    losses = [record["train/loss"] for record in records(straight.run) if "train/loss" in record]
    assert sum(losses[-4:]) / 4 < losses[0] - 0.5
    resumed = tiny_config(tmp_path / "resumed", tiny_dataset, MUON)
    for steps in (6, 5):
        train_alone(resumed, stop_after=steps)
    train_alone(resumed)
    assert_same_run(straight.run, resumed.run, 20)
    with pytest.raises(ConfigError, match=r"optim\.name: muon -> adamw"):
        train_alone(tiny_config(tmp_path / "resumed", tiny_dataset, {"optim.weight_decay": 0.1, "train.steps": 24}))


def test_what_it_does_not_work_with_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.sharding: does not work with optim\.name=muon"):
        tiny_config(tmp_path, tmp_path, {**MUON, "train.sharding": Sharding.full})
    with pytest.raises(ConfigError, match=r"optim\.fused: apex does not work with optim\.name=muon"):
        tiny_config(tmp_path, tmp_path, {**MUON, "optim.fused": FusedAdam.apex})
