"""Blocks that torch.compile made: the same run, and its faults are still named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch._dynamo
from torch import nn

from tests.support.tiny import ALONE, tiny_config
from tests.support.training import records, train_alone
from xlmtrain.config.model import ModelConfig
from xlmtrain.data.loader import StepBatches
from xlmtrain.errors import NumericalError
from xlmtrain.model.kernels import dispatch
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime import failpoints
from xlmtrain.train.parallel import compile_blocks
from xlmtrain.train.step import StepOutput, TrainStep

CHANGES = {
    "model.layers": 2,
    "model.dropout": 0.0,
    "model.attention_dropout": 0.0,
    "train.steps": 6,
    "evaluate.every": 3,
}


def test_the_encoders_last_block_is_left_out_of_language_models(monkeypatch: pytest.MonkeyPatch) -> None:
    config, compiled = ModelConfig(16, layers=2, heads=2), []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    mlm, both, translation = (
        LanguageModel(config, 50, 2),
        TranslationModel(config, 50, 2),
        TranslationModel(config, 50, 2),
    )
    translation.head.requires_grad_(False)  # as build_model leaves it where translation alone is trained
    for model, blocks in ((mlm, 1), (both, 3), (translation, 4)):
        compiled.clear()
        compile_blocks(model)
        assert len(compiled) == blocks
        assert (model.encoder.blocks[-1] in compiled) == (model is translation)


@pytest.mark.slow
def test_the_run_is_the_same(tiny_dataset: Path, tmp_path: Path) -> None:
    plain, compiled = (
        tiny_config(tmp_path / str(on), tiny_dataset, {**CHANGES, "train.compile": on}) for on in (False, True)
    )
    train_alone(plain)
    torch._dynamo.utils.counters.clear()
    train_alone(compiled)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    for one, other in zip(records(plain.run), records(compiled.run), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-4), key
    # Its checkpoints have the weights under the same names: they resume without compiling.
    train_alone(tiny_config(compiled.run, tiny_dataset, {**CHANGES, "train.steps": 8}))


@pytest.mark.slow
def test_what_is_not_finite_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {**CHANGES, "train.compile": True})
    failpoints.arm("loss:3:0:nan", ALONE.rank)
    try:
        with pytest.raises(NumericalError, match="rank 0: the loss was nan, but is finite when computed again"):
            train_alone(config)
    finally:
        failpoints.arm(None, ALONE.rank)


@pytest.mark.slow
@pytest.mark.parametrize(("others", "most"), [({"data.tlm": {}}, 1), ({"data.clm": {"de": 1.0}}, 7)])
def test_compiled_once_for_all_batches(
    monkeypatch: pytest.MonkeyPatch, tiny_dataset: Path, tmp_path: Path, others: dict[str, Any], most: int
) -> None:
    """As on a GPU: a block is one graph, and neither the number of targets nor an evaluation asks for another one."""
    monkeypatch.setattr(dispatch, "use_cpu_kernels", lambda _: False)
    compile_module = nn.Module.compile
    # What is compiled, and how often, is the same without the compiler.
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_module(module, backend="eager"))
    graphs = []
    step = TrainStep.__call__

    def counted(train_step: TrainStep, data: StepBatches, targets: list[float]) -> StepOutput:
        result = step(train_step, data, targets)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        return result

    monkeypatch.setattr(TrainStep, "__call__", counted)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    changes = {"train.compile": True, "train.steps": 40, "model.layers": 3, "evaluate.every": 3, **others}
    train_alone(tiny_config(tmp_path / "run", tiny_dataset, changes))
    counters = torch._dynamo.utils.counters
    assert 1 <= graphs[-1] <= most
    assert graphs[-1] == graphs[9]
    assert not counters["graph_break"]
    assert not counters["unimplemented"]  # such as: compiled too often
