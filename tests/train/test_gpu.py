"""Training on a CUDA device: the same numbers as on the CPU, and the number formats that only a GPU uses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.tiny import ALONE, tiny_config
from tests.support.training import assert_same_run, records, train_on
from xlmtrain.config.train import Device, Precision
from xlmtrain.runtime.distributed import Distributed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def _on_gpu() -> Distributed:
    return Distributed(0, 1, torch.device("cuda", 0))


def test_losses_are_the_cpus(tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {
        "model.dropout": 0.0,
        "model.attention_dropout": 0.0,
        "train.precision": Precision.fp32,
        "train.device": Device.cpu,
    }
    train_on(ALONE, tiny_config(tmp_path / "cpu", tiny_dataset, changes))
    train_on(_on_gpu(), tiny_config(tmp_path / "gpu", tiny_dataset, {**changes, "train.device": Device.cuda}))
    losses = [
        [record["train/loss"] for record in records(tmp_path / run) if "train/loss" in record] for run in ("cpu", "gpu")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("precision", [Precision.fp16, Precision.bf16])
def test_half_precision_learns_and_resumes(precision: Precision, tiny_dataset: Path, tmp_path: Path) -> None:
    if precision is Precision.bf16 and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no bf16")
    changes = {"train.precision": precision, "train.device": Device.cuda}
    straight = tiny_config(tmp_path / "straight", tiny_dataset, changes)
    train_on(_on_gpu(), straight)
    losses = [record["train/loss"] for record in records(tmp_path / "straight") if "train/loss" in record]
    assert losses[-1] < 0.9 * losses[0]
    stopped = tiny_config(tmp_path / "stopped", tiny_dataset, changes)
    train_on(_on_gpu(), stopped, stop_after=7)
    train_on(_on_gpu(), stopped)
    assert_same_run(straight.run, stopped.run, 20)
