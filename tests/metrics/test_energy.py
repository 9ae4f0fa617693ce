"""Energy is read from counters where there are any, is an estimate elsewhere, and adds up over starts and processes."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.tiny import ALONE, run_processes, tiny_config
from tests.support.training import records, train_alone
from xlmtrain.metrics import energy
from xlmtrain.metrics.energy import DeviceEnergy, EnergyMeter, energy_metrics
from xlmtrain.runtime.distributed import Distributed


def write_zones(directory: Path, microjoules: dict[str, int]) -> Path:
    """RAPL as Linux shows it: name of a zone -> its counter."""
    for i, (name, value) in enumerate(microjoules.items()):
        zone = directory / f"intel-rapl:{i}"
        zone.mkdir(parents=True, exist_ok=True)
        for file, content in (("name", name), ("energy_uj", value), ("max_energy_range_uj", 1_000_000_000)):
            (zone / file).write_text(f"{content}\n")
    return directory


def test_rapl_counts_packages_and_memory_and_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"package-0": 10_000_000, "core": 0, "package-1": 990_000_000, "dram": 0, "psys": 0}
    monkeypatch.setattr(energy, "POWERCAP", write_zones(tmp_path, parts))
    meter = EnergyMeter(ALONE)
    monkeypatch.setenv("LOCAL_RANK", "1")
    other = EnergyMeter(ALONE)
    write_zones(tmp_path, {"package-0": 13_000_000, "core": 9 * 10**8, "package-1": 5_000_000, "dram": 2_000_000})
    (used,) = meter.collect()
    assert (used.method, used.joules) == ("RAPL counters", pytest.approx(3 + 15 + 2))
    assert used.seconds > 0
    assert energy_metrics([used]) == {"energy/measured_kwh": pytest.approx(20 / 3.6e6)}
    (nothing,) = other.collect()  # the first process of the host reads for all
    assert (nothing.seconds, nothing.joules) == (0, 0)
    assert meter.collect()[0].joules == 0


def test_a_counter_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(energy, "POWERCAP", write_zones(tmp_path, {"package-0": 1_000_000}))
    meter = EnergyMeter(ALONE)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert [meter.collect()[0].joules, meter.collect()[0].joules] == [0, 0]
    assert caplog.text.count("is measured no more") == 1


def test_without_counters_busy_cores_are_an_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(time, "process_time", iter([100.0, 107.0]).__next__)
    (used,) = EnergyMeter(ALONE).collect()
    assert (used.method, used.joules, used.is_measured) == ("4 W per busy core", 28.0, False)
    assert energy_metrics([used]) == {"energy/estimated_kwh": pytest.approx(28 / 3.6e6)}


class FakeNvml:
    """NVML with one GPU, whose counter a test sets, in millijoules."""

    class NVMLError(Exception):
        """As in pynvml."""

    def __init__(self, counter: Callable[[], int]) -> None:
        self.counter = counter

    def nvmlInit(self) -> None:
        """Do nothing."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        assert handle == "GPU-1234"
        return self.counter()


def no_counter() -> int:
    raise FakeNvml.NVMLError("Not Supported")


@pytest.mark.parametrize(
    ("name", "counter", "method", "joules"),
    [
        ("NVIDIA H200", iter([5000, 5000, 12000]).__next__, "NVML counter", 7.0),
        ("NVIDIA H200", no_counter, "700 W each", 1400.0),
        ("NVIDIA H200", None, "700 W each", 1400.0),  # without the package
        ("NVIDIA H200 MIG 1g.18gb", no_counter, "unknown", 0.0),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, name: str, counter: Callable[[], int] | None, method: str, joules: float
) -> None:
    monkeypatch.setattr(energy, "pynvml", None if counter is None else FakeNvml(counter))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    monkeypatch.setattr(time, "monotonic", lambda: 10.0)
    meter = EnergyMeter(Distributed(0, 1, torch.device("cuda", 0)))
    monkeypatch.setattr(time, "monotonic", lambda: 12.0)
    assert meter.collect()[1] == DeviceEnergy(name, method, seconds=2.0, joules=joules)


def counted(joules: float) -> Callable[[bool], tuple[str, str, Callable[[], float]]]:
    """A CPU whose counter rises by ``joules`` with each reading."""
    counter = itertools.count(0.0, joules)
    return lambda first: ("CPU", energy.RAPL, counter.__next__)


def energy_of(run: Path, step: int) -> list[dict[str, Any]]:
    path = run / "checkpoints" / f"step-{step:08d}" / "state.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())["progress"]["energy"]
    return found


def test_energy_adds_up_over_starts(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(energy, "_cpu_counter", counted(3.6e6))
    config = tiny_config(tmp_path / "run", tiny_dataset, {"evaluate.every": 0})
    train_alone(config, stop_after=7)  # saved at 5 and 7
    assert "energy: CPU, measured by RAPL counters" in caplog.text
    assert energy_of(Path(config.run), 7)[0]["joules"] == 2 * 3.6e6
    train_alone(config)  # saved at 10, 15 and 20
    (used,) = energy_of(Path(config.run), 20)
    assert used["joules"] == 5 * 3.6e6
    assert used["seconds"] > energy_of(Path(config.run), 15)[0]["seconds"]
    found = [(r["step"], r["energy/measured_kwh"]) for r in records(config.run, timed=True) if len(r) == 2]
    assert found == [(5, 1.0), (7, 2.0), (10, 3.0), (15, 4.0), (20, 5.0)]


def collect(distributed: Distributed) -> list[DeviceEnergy]:
    energy._cpu_counter = counted(10.0)  # type: ignore[assignment]
    return EnergyMeter(distributed).collect()


def test_energy_adds_up_over_processes(tmp_path: Path) -> None:
    for found in run_processes(2, collect, tmp_path):
        assert [(used.device, used.joules) for used in found] == [("CPU", 20.0)]
