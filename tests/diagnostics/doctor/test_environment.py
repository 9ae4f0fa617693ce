"""Machines on which training would fail, crawl or run out of something: each is named, with what to do."""

from __future__ import annotations

from email.message import Message
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.findings import findings, only
from tests.support.tiny import tiny_config
from xlmtrain.diagnostics.doctor import environment
from xlmtrain.diagnostics.doctor.environment import (
    InstalledGpu,
    Machine,
    check_device,
    check_disk,
    check_memory,
    check_packages,
    check_threads,
    this_machine,
)
from xlmtrain.diagnostics.doctor.requirements import package_problems
from xlmtrain.diagnostics.finding import Severity, info

GB = 10**9
A100, V100 = InstalledGpu("A100", (8, 0), 80 * GB), InstalledGpu("V100", (7, 0), 16 * GB)
ERROR, WARNING = Severity.error, Severity.warning
WANTED = {"torch": "2.13.0+cpu", "hydra-core": "1.3.8"}


def machine(**changes: Any) -> Machine:
    usual = {"cores": 4, "threads": 1, "flags": frozenset(), "memory": 16 * GB, "shared_memory": 8 * GB}
    return Machine(**{**usual, **changes})


def metadata(name: str) -> Message:
    """The metadata of a package that wants two others, and a third one as an extra."""
    found = Message()
    found["Name"], found["Requires-Python"] = name, ">=3.10"
    for wanted in ("torch>=2.11", "hydra-core<1.4,>=1.3.7", 'ray>=2.40; extra == "ray"'):
        found["Requires-Dist"] = wanted
    return found


@pytest.mark.parametrize(
    ("changes", "python", "said"),
    [
        ({}, (3, 11), None),
        ({}, (3, 9), "Python 3.9 is not >=3.10"),
        ({"torch": None}, (3, 11), "torch is not installed"),
        ({"torch": "2.9.1"}, (3, 11), "torch 2.9.1 is installed, >=2.11 is asked for: pip install 'torch>=2.11'"),
        ({"hydra-core": "1.3.6"}, (3, 11), "hydra-core 1.3.6 is installed, <1.4,>=1.3.7 is asked for"),
        ({"hydra-core": "1.4.0.dev1"}, (3, 11), "hydra-core 1.4.0.dev1 is installed"),
    ],
)
def test_versions(changes: dict[str, str | None], python: tuple[int, int], said: str | None) -> None:
    found = list(package_problems(metadata, {**WANTED, **changes}.get, python))
    assert len(found) == (said is not None)
    assert all(problem.startswith(said or "") for problem in found)


def test_xlmtrain_that_is_not_installed() -> None:
    def missing(name: str) -> Message:
        raise PackageNotFoundError(name)

    (problem,) = package_problems(missing)
    assert problem.startswith("xlmtrain is not installed")


def test_this_environment_is_as_setup_cfg_asks() -> None:
    assert list(package_problems()) == []


def test_packages_that_are_something_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path)
    monkeypatch.setattr(environment, "package_problems", lambda: [])
    monkeypatch.setattr(environment, "is_pypi_apex", lambda: False)
    monkeypatch.setattr(environment.bpe, "fastBPE", SimpleNamespace(fastBPE=object))
    assert findings(check_packages(config)) == []
    monkeypatch.setattr(environment.bpe, "fastBPE", None)
    assert findings(check_packages(config)) == []
    assert any("fastBPE is not installed" in finding.what for finding in check_packages(config))
    monkeypatch.setattr(environment.bpe, "fastBPE", SimpleNamespace(__file__="/x/fastBPE.py"))
    assert "(/x/fastBPE.py) is something else" in only(check_packages(config)).what
    monkeypatch.setattr(environment.bpe, "fastBPE", SimpleNamespace(fastBPE=object))
    monkeypatch.setattr(environment, "is_pypi_apex", lambda: True)
    assert only(check_packages(config)).severity is Severity.warning
    config.optim.fused = environment.FusedAdam.apex
    assert only(check_packages(config)).severity is Severity.error
    monkeypatch.setattr(environment, "is_pypi_apex", lambda: False)
    monkeypatch.setattr(environment, "package_problems", lambda: ["torch 1.0 is installed"])
    assert only(check_packages(config)).what == "torch 1.0 is installed"


@pytest.mark.parametrize(
    ("device", "precision", "has", "said", "severity"),
    [
        ("auto", "auto", {}, None, ERROR),
        ("auto", "bf16", {"flags": frozenset({"amx_bf16"})}, None, ERROR),
        ("auto", "auto", {"flags": frozenset({"avx512_bf16"})}, "This processor has bf16", WARNING),
        ("auto", "bf16", {}, "train.precision=bf16, but this processor has neither avx512_bf16", ERROR),
        ("auto", "fp16", {}, "train.precision=fp16 is for GPUs", ERROR),
        ("cuda", "auto", {}, "train.device=cuda, but there is no GPU: ", ERROR),
        ("xpu", "auto", {"device": "mps"}, "train.device=xpu: torch finds no such device", ERROR),
        ("xpu", "auto", {"device": "xpu"}, None, ERROR),
        ("auto", "fp16", {"device": "mps"}, None, ERROR),
        ("auto", "auto", {"gpus": [A100], "kernels": ["sm_80", "sm_90"]}, None, ERROR),
        ("auto", "bf16", {"gpus": [V100]}, "train.precision=bf16: V100 has no bf16", ERROR),
        ("auto", "fp16", {"gpus": [V100]}, None, ERROR),
        ("auto", "fp16", {"gpus": [A100]}, "A100 has bf16, which needs no loss scale", WARNING),
        ("auto", "auto", {"gpus": [V100], "kernels": ["sm_75", "sm_80"]}, "This torch has no kernels for V100", ERROR),
    ],
)
def test_device_and_precision(
    tmp_path: Path, device: str, precision: str, has: dict[str, Any], said: str | None, severity: Severity
) -> None:
    config = tiny_config(tmp_path, tmp_path)
    config.train.device, config.train.precision = environment.Device(device), environment.Precision(precision)
    found = findings(check_device(config, machine(**has)))
    assert [finding.what.startswith(said or "") for finding in found] == ([True] if said else [])
    assert [finding.severity for finding in found] == ([severity] if said else [])


def test_threads() -> None:
    assert list(check_threads(machine(), 4, {})) == []
    assert list(check_threads(machine(threads=4), 2, {})) == []  # torchrun gives each of them one
    crowded = only(check_threads(machine(threads=4), 2, {"OMP_NUM_THREADS": "4"}))
    assert crowded.what.startswith("8 threads, of 2 processes, would compute on 4 cores")
    assert crowded.causes == ["OMP_NUM_THREADS=2"]
    assert only(check_threads(machine(threads=8), 1, {})).causes == ["OMP_NUM_THREADS=4"]
    busy = machine(load=4.0)
    assert list(check_threads(busy, 1, {"OMP_WAIT_POLICY": "PASSIVE"})) == []
    assert only(check_threads(busy, 1, {"OMP_WAIT_POLICY": "active"})).what.startswith("OMP_WAIT_POLICY=ACTIVE")
    assert only(check_threads(machine(load=9.0), 1, {})).severity is Severity.warning


def test_memory(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path, {"model.dim": 1024, "model.heads": 8})
    size = 60_000, 2  # some 75 million parameters, so 1.2 GB
    assert list(check_memory(config, *size, machine(), 2)) == []
    assert only(check_memory(config, *size, machine(memory=2 * GB), 2)).what.startswith("Weights, gradient and Adam's")
    assert list(check_memory(config, *size, machine(memory=2 * GB), 1)) == []
    on_gpus = machine(gpus=[A100, A100], memory=2 * GB)
    assert list(check_memory(config, *size, on_gpus, 2)) == [
        info("memory: about 2.4 GB needed on each GPU, 80.0 GB are there")
    ]
    config.train.micro_batch_tokens = 100_000
    few = machine(gpus=[InstalledGpu("GTX", (7, 5), 8 * GB)])
    short = only(check_memory(config, *size, few, 1))
    assert short.what.startswith("About 16.")
    assert short.what.endswith(" GB needed on each GPU, 8.0 GB are there.")
    assert short.causes[0].startswith("train.micro_batch_tokens below 100,000: activations and logits take 13.")
    assert short.causes[1].endswith("weights, gradient and optimizer state take 1.2 GB")
    container = machine(gpus=[A100, A100], shared_memory=64 * 10**6)
    assert only(check_memory(config, *size, container, 2)).what.startswith("/dev/shm has 64 MB")
    assert findings(check_memory(config, *size, container, 1)) == []


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path / "runs" / "new", tmp_path)
    assert findings(check_disk(config, 100, 2, free=GB)) == []
    assert "4 checkpoints of" in only(check_disk(config, 100, 2, free=1000)).what
    config.train.keep_every, config.train.steps = 5, 20
    assert "8 checkpoints of" in only(check_disk(config, 100, 2, free=1000)).what
    monkeypatch.setattr(environment.os, "access", lambda path, mode: False)  # root may write everywhere
    assert only(check_disk(config, 100, 2)).what == f"run={config.run}: {tmp_path} cannot be written."


def test_this_machine_is_read() -> None:
    here = this_machine()
    assert here.cores >= 1
    assert here.threads >= 1
    assert here.memory > 10**8
