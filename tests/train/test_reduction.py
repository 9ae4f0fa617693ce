"""Adding up gradients over processes: how often, how many bytes, and in half precision."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from tiny import run_processes, tiny_config
from training import records, train_on

from xlmtrain.config.schema import Config, Precision
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.distributed import Distributed

# Large enough that the gradients, not the protocol's headers, are what is counted; several buckets.
LARGE = {"model.dim": 512, "model.layers": 1, "train.batch_tokens": 512, "train.micro_batch_tokens": 512}
CUT = {"train.micro_batch_tokens": 16}
HALF = {"train.compress_gradients": True, "train.precision": Precision.bf16}


def measured(data: Path, processes: int, *variants: dict[str, Any]) -> list[dict[str, float]]:
    """What goes over the wire in a step, by ``wire.py``."""
    namespace = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("no network namespaces here, in which the bytes are counted")
    paths = [str(REPOSITORY), str(REPOSITORY / "tests")]
    settings = json.dumps([{**LARGE, **changes} for changes in variants])
    run = subprocess.run(
        [*namespace, sys.executable, str(Path(__file__).parent / "wire.py"), str(data), str(processes), settings],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_bytes_of_a_step_are_those_of_a_ring(tiny_dataset: Path, processes: int) -> None:
    """Each process sends every gradient 2 (n - 1) / n times (Patarasuk and Yuan 2009), once a step, however many
    micro-batches there are."""
    whole, cut, half = measured(tiny_dataset, processes, {}, CUT, HALF)
    for found, size in ((whole, 4), (cut, 4), (half, 2)):
        predicted = processes * 2 * (processes - 1) / processes * found["parameters"] * size
        print(
            f"{processes} processes, {found['micro_batches']} micro-batches, gradients of {size} bytes: "
            f"{found['reductions']:.0f} reductions, {found['bytes']:,.0f} bytes a step, predicted {predicted:,.0f}"
        )
        assert found["bytes"] == pytest.approx(predicted, rel=0.05)
        assert found["reductions"] == whole["reductions"] >= 1
    assert cut["micro_batches"] > 2 * whole["micro_batches"]


def trained(distributed: Distributed, *configs: Config) -> list[str]:
    """Runs, one after the other."""
    return [train_on(distributed, config).status for config in configs]


def test_compressed_gradients_train_as_well(tiny_dataset: Path, tmp_path: Path) -> None:
    """The losses differ, as the gradients are rounded, by no more than that of bf16 from fp32."""
    half = {"train.precision": Precision.bf16, "train.steps": 30}
    whole, compressed = (
        tiny_config(tmp_path / str(on), tiny_dataset, {**half, "train.compress_gradients": on}) for on in (False, True)
    )
    assert run_processes(2, trained, tmp_path, whole, compressed) == [["done", "done"]] * 2
    losses = [
        [one["train/loss"] for one in records(config.run) if "train/loss" in one] for config in (whole, compressed)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def refused(distributed: Distributed, config: Config) -> str:
    """The error that it ends with."""
    with pytest.raises(ConfigError) as caught:
        train_on(distributed, config)
    return str(caught.value)


def test_nothing_to_compress_to(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {"train.compress_gradients": True})
    for message in run_processes(2, refused, tmp_path, config):
        assert "train.compress_gradients=true: with train.precision=fp32 there is no smaller format" in message
    assert not (tmp_path / "run").exists()
