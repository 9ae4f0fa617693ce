"""Devices other than CUDA, none of which is here: what is chosen where torch says that it has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import xlmtrain
from xlmtrain.config.train import Device, Precision
from xlmtrain.data.batch import to_device
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.device import ACCELERATORS, best_device, copies_asynchronously, seed_device, sum_dtype
from xlmtrain.runtime.distributed import Distributed, initialize
from xlmtrain.runtime.precision import choose_precision

MPS, XPU = torch.device("mps", 0), torch.device("xpu", 0)


def have(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    """Make torch say that it has two devices of each of these types, one of MPS, and no others."""
    for kind in ACCELERATORS:
        module, count = torch.get_device_module(kind), (1 if kind == "mps" else 2) * (kind in kinds)
        monkeypatch.setattr(module, "is_available", lambda count=count: count > 0)
        monkeypatch.setattr(module, "device_count", lambda count=count: count)
        if kind != "mps":
            monkeypatch.setattr(module, "set_device", lambda index: None)


def start(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> list[Any]:
    """Stand for process ``rank`` of torchrun; returns a list that gets the backend of the process group."""
    backends: list[Any] = []
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("xlmtrain.runtime.distributed._rendezvous_store", lambda limit: None)
    monkeypatch.setattr(
        "torch.distributed.init_process_group",
        lambda backend, **options: backends.extend((backend, options["device_id"])),
    )
    return backends


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [((), "cpu"), (("mps",), "mps"), (("xpu", "mps"), "xpu"), (("mps", "xpu", "cuda"), "cuda")],
)
def test_the_device_is_the_first_that_torch_has(
    monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], expected: str
) -> None:
    have(monkeypatch, *kinds)
    start(monkeypatch, 0, 1)
    device = torch.device("cpu") if expected == "cpu" else torch.device(expected, 0)
    assert best_device() == expected
    assert initialize(Device.auto) == Distributed(0, 1, device)
    assert initialize(Device.cpu) == Distributed(0, 1, torch.device("cpu"))


def test_processes_on_xpus(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "xpu")
    backends = start(monkeypatch, 1, 2)
    assert initialize(Device.xpu).device == torch.device("xpu", 1)
    assert backends == ["cpu:gloo,xpu:xccl", torch.device("xpu", 1)]


@pytest.mark.parametrize(("rank", "message"), [(0, "MPS takes one process"), (1, "1 found; .*-per-node=1, or")])
def test_mps_takes_one_process(monkeypatch: pytest.MonkeyPatch, rank: int, message: str) -> None:
    have(monkeypatch, "mps")
    start(monkeypatch, rank, 2)
    with pytest.raises(ConfigError, match=rf"^train\.device=mps: .*{message}"):
        initialize(Device.mps)


@pytest.mark.parametrize("native", [False, True])
def test_precision_on_an_xpu_and_on_mps(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda including_emulation: native)
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda device: "Intel Arc")
    assert choose_precision(Precision.auto, XPU) is (Precision.bf16 if native else Precision.fp16)
    if not native:
        with pytest.raises(ConfigError, match=r"train\.precision=bf16: Intel Arc has no bf16"):
            choose_precision(Precision.bf16, XPU)
    assert choose_precision(Precision.auto, MPS) is Precision.fp32
    assert choose_precision(Precision.bf16, MPS) is Precision.bf16


def test_mps_has_no_float64_and_no_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert [sum_dtype(one) for one in (cpu, XPU, MPS)] == [torch.float64, torch.float64, torch.float32]
    assert [copies_asynchronously(one) for one in (cpu, XPU, MPS)] == [False, True, False]
    moved: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **options: moved.append((args, options)))
    to_device(torch.zeros(1), MPS)  # pinning it would raise
    assert moved == [((MPS,), {"non_blocking": False})]


def test_the_device_is_seeded_beside_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.xpu, "manual_seed", seeds.append)
    seed_device(7, XPU)
    seed_device(7, torch.device("cpu"))
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert (seeds, drawn.tolist()) == ([7], torch.rand(3).tolist())


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"^train\.device=xpu: process 0 of this machine has no GPU, 0 found"):
        initialize(Device.xpu)
    with pytest.raises(ConfigError, match=r"^device=xpu: there is none"):
        xlmtrain.load("anything", device="xpu")
