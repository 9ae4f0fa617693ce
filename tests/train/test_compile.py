"""Blocks that torch.compile made: the same run, and its faults are still named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch._dynamo
from tiny import ALONE, tiny_config
from training import records, train_alone

from xlmtrain.errors import NumericalError
from xlmtrain.runtime import faults

CHANGES = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "train.steps": 6, "evaluate.every": 3}


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
    faults.arm("loss:3:0:nan", ALONE.rank)
    try:
        with pytest.raises(NumericalError, match="rank 0: the loss was nan, but is finite when computed again"):
            train_alone(config)
    finally:
        faults.arm(None, ALONE.rank)
