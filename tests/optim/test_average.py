"""Averages of the weights: their values, in the checkpoints, validated beside the raw ones, exported by choice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import xlmtrain
from tests.support.tiny import ALONE, run_processes, tiny_config
from tests.support.training import assert_same_run, checkpoint, records, train_alone, train_on
from xlmtrain.config.optim import AverageConfig, AverageKind
from xlmtrain.config.train import Sharding
from xlmtrain.errors import CheckpointError, ConfigError
from xlmtrain.optim.average import WeightAverage

EMA = {"average.kind": AverageKind.ema, "average.decay": 0.8, "average.start": 4}


@pytest.mark.parametrize("kind", [AverageKind.uniform, AverageKind.ema])
def test_the_mean_is_that_of_the_definition(kind: AverageKind) -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(AverageConfig(kind, decay=0.75, start=2), model)
    expected, seen = None, []
    for step in range(1, 12):
        nn.init.normal_(model.weight)
        average.update(step)
        if step > 2:
            seen.append(model.weight.detach().clone())
            mean = torch.stack(seen).mean(0)
            if kind is AverageKind.ema and len(seen) > 4:
                assert expected is not None
                mean = 0.75 * expected + 0.25 * seen[-1]
            expected = mean
            torch.testing.assert_close(average.values["weight"], expected)
        else:
            assert average.values == {}
    raw = model.weight.detach().clone()
    with average.swapped():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, raw)


def test_a_run_keeps_validates_and_exports_it(tiny_dataset: Path, tmp_path: Path) -> None:
    plain, straight = (tiny_config(tmp_path / name, tiny_dataset, given) for name, given in (("p", {}), ("s", EMA)))
    for config in (plain, straight):
        train_alone(config)
    weights = [load_file(checkpoint(config.run, 20) / "model.safetensors") for config in (plain, straight)]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())  # training is the same
    measured = {record["step"]: record for record in records(straight.run) if "valid/mlm_ppl" in record}
    assert ["average/mlm_ppl" in measured[step] for step in (0, 5, 20)] == [False, True, True]
    assert measured[20]["average/mlm_ppl"] != measured[20]["valid/mlm_ppl"]
    assert [record["valid/mlm_ppl"] for record in records(plain.run) if "valid/mlm_ppl" in record] == [
        record["valid/mlm_ppl"] for record in measured.values()
    ]
    averaged = xlmtrain.load(straight.run, checkpoint="average")
    saved = load_file(checkpoint(straight.run, 20) / "optimizer.safetensors")
    name = "encoder.token_embeddings.weight"
    assert torch.equal(averaged.model.state_dict()[name], saved[f"average.{name}"])
    with pytest.raises(CheckpointError, match="has no averaged weights"):
        xlmtrain.load(plain.run, checkpoint="average")

    resumed = tiny_config(tmp_path / "r", tiny_dataset, EMA)
    for steps in (3, 8):
        train_alone(resumed, stop_after=steps)
    train_alone(resumed)
    assert_same_run(straight.run, resumed.run, 20)

    plain.average, plain.train.steps = AverageConfig(AverageKind.ema), 24
    with pytest.raises(ConfigError, match=r"the run is at step 20 without an average; give average.start=20"):
        train_alone(plain)
    plain.average = AverageConfig(AverageKind.uniform, start=20)
    assert train_alone(plain).reason == "24 steps"


@pytest.mark.slow
def test_sharded_weights_have_the_same_average(tiny_dataset: Path, tmp_path: Path) -> None:
    still = {**EMA, "model.dropout": 0.0, "model.attention_dropout": 0.0, "train.steps": 8}
    alone = tiny_config(tmp_path / "alone", tiny_dataset, still)
    sharded = tiny_config(tmp_path / "sharded", tiny_dataset, {**still, "train.sharding": Sharding.full})
    train_on(ALONE, alone)
    run_processes(2, train_on, tmp_path, sharded)
    ours, theirs = (load_file(checkpoint(config.run, 8) / "optimizer.safetensors") for config in (sharded, alone))
    name = (
        "average.encoder.token_embeddings.weight"  # the bias of keys has no gradient but rounding, which Adam enlarges
    )
    torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
    measured = [records(config.run)[-1]["average/mlm_ppl"] for config in (sharded, alone)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)
