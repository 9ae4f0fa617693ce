"""The optimizer takes the original's steps, decays what it should, and says clearly why apex cannot be used."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.oracle import Oracle
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.optim import FusedAdam, OptimConfig
from xlmtrain.errors import ConfigError
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import make_optimizer

CPU = torch.device("cpu")
TRACES = range(4)


def run_trace(oracle: Oracle, number: int, scale_eps: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights after each of the trace's 12 steps, ours and the oracle's, (12, 5, 3).

    The oracle adds eps to the root of the uncorrected second moment, which is torch's step with eps larger by
    1 / sqrt(1 - beta2^t); ``scale_eps`` makes it so.
    """
    name, rates = list(oracle.numbers["optimizers"].items())[number]
    given = {key: float(value) for key, _, value in (part.partition("=") for part in name.split(",")[1:])}
    config = OptimConfig(
        beta1=given.get("beta1", 0.9),
        beta2=given.get("beta2", 0.999),
        eps=given.get("eps", 1e-8),
        weight_decay=given.get("weight_decay", 0.0),
    )
    layer = nn.Linear(3, 5, bias=False)
    with torch.no_grad():
        layer.weight.copy_(oracle[f"optimizers.{number}.start"])
    optimizer = make_optimizer(config, layer, CPU)
    weights = []
    for step, (rate, gradient) in enumerate(zip(rates, oracle[f"optimizers.{number}.grads"]), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
            group["eps"] = config.eps / math.sqrt(1 - config.beta2**step) if scale_eps else config.eps
        layer.weight.grad = gradient.clone()
        optimizer.step()
        weights.append(layer.weight.detach().clone())
    return torch.stack(weights), oracle[f"optimizers.{number}.weights"]


@pytest.mark.parametrize("number", TRACES)
def test_twelve_steps_are_the_oracles(oracle: Oracle, number: int) -> None:
    ours, theirs = run_trace(oracle, number, scale_eps=True)
    assert (theirs[-1] - theirs[0]).abs().max() > 1e-4  # the trace does move
    torch.testing.assert_close(ours, theirs, atol=6e-7, rtol=0)  # five roundings of a weight near 1


@pytest.mark.parametrize("number", TRACES)
def test_the_other_convention_of_eps_hardly_matters(oracle: Oracle, number: int) -> None:
    """Unscaled, eps = 1e-8 and 1e-6 give the same to fp32 accuracy; trace 1 has 1e-3, large enough to see."""
    ours, theirs = run_trace(oracle, number, scale_eps=False)
    torch.testing.assert_close(ours, theirs, atol=2e-4 if number == 1 else 1e-6, rtol=0)


def test_weight_decay_spares_biases_norms_and_embeddings() -> None:
    model = LanguageModel(ModelConfig(dim=16, layers=2, heads=2, max_positions=8), 50, 2)
    decayed, spared = make_optimizer(OptimConfig(weight_decay=0.1), model, CPU).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert {names[id(p)] for p in decayed["params"]} == {
        f"encoder.blocks.{layer}.{part}.weight"
        for layer in (0, 1)
        for part in ("attention.qkv", "attention.out", "ffn.inner", "ffn.outer")
    }
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_what_is_not_trained_is_left_out() -> None:
    model = LanguageModel(ModelConfig(dim=16, layers=1, heads=2, max_positions=8, sinusoidal_positions=True), 50, 2)
    held = [p for group in make_optimizer(OptimConfig(), model, CPU).param_groups for p in group["params"]]
    assert all(p is not model.encoder.position_embeddings.weight for p in held)
    assert len(held) == len(list(model.parameters())) - 1


def ask_for_apex() -> str:
    with pytest.raises(ConfigError) as caught:
        make_optimizer(OptimConfig(fused=FusedAdam.apex), nn.Linear(2, 2), CPU)
    return str(caught.value)


def install(directory: Path, summary: str, modules: dict[str, str]) -> None:
    """A package ``apex`` in ``directory``, as an installer would leave it."""
    for name, source in {"apex/__init__.py": "", **modules}.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(source, encoding="utf-8")
    about = directory / "apex-0.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: apex\nVersion: 0.9\nSummary: {summary}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packages in front of all others; what was imported of it is forgotten after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("apex", "apex.optimizers", "amp_C"):
        monkeypatch.setitem(sys.modules, name, None)  # so that monkeypatch puts back what was there
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_apex_absent(site: Path) -> None:
    message = ask_for_apex()
    assert message.startswith("optim.fused=apex: NVIDIA apex is not installed")
    assert "optim.fused=torch" in message


def test_the_other_package_of_that_name_is_recognised(site: Path) -> None:
    install(site, "Pyramid Apex, a toolkit for web applications", {})
    assert "not NVIDIA's" in ask_for_apex()


def test_apex_without_its_cuda_extensions(site: Path) -> None:
    install(site, "PyTorch Extensions written by NVIDIA", {"apex/optimizers.py": "class FusedAdam: ..."})
    assert "amp_C" in ask_for_apex()


def test_apex_on_a_cpu(site: Path) -> None:
    install(site, "PyTorch Extensions", {"apex/optimizers.py": "class FusedAdam: ...", "amp_C.py": ""})
    assert "CUDA only" in ask_for_apex()
