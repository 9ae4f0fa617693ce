"""What GPUs can do: NVIDIA's data sheets (SXM parts), and what reductions between them reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """``flops``: dense half-precision peak, FLOP/s. ``bandwidth``: of its memory, bytes/s. ``memory``: bytes.

    ``neighbours``: bytes/s at which it reduces with the other GPUs of its host (NVLink; what is reached, not the data
    sheet's). ``network``: Gb/s of the network of a host with eight of them, as usually sold.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    neighbours: float
    network: float


# By what a device's name holds; most specific first.
GPUS = (
    Gpu("H200", 989e12, 4.8e12, 141e9, 350e9, 3200),
    Gpu("H100", 989e12, 3.35e12, 80e9, 350e9, 3200),
    Gpu("A100", 312e12, 2.0e12, 80e9, 200e9, 1600),
    Gpu("V100", 125e12, 0.9e12, 32e9, 60e9, 100),
)


def gpu_named(device: str) -> Gpu | None:
    """The GPU that ``device`` is the name of; None if it is not known."""
    return next((gpu for gpu in GPUS if gpu.name in device), None)
