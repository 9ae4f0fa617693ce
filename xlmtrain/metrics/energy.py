"""Energy that the devices of a run use: read from their counters where there are any, else estimated.

CPU   RAPL's counters of packages and memory, for the whole machine; else CPU time x CORE_WATTS
GPU   the driver's counter (NVML), for the whole GPU; else time x the power on its data sheet, an upper bound
"""

from __future__ import annotations

import json
import logging
import platform
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from xlmtrain.metrics.flops import gpu_named
from xlmtrain.runtime.distributed import Distributed

try:
    import pynvml
except ImportError:
    pynvml = None

log = logging.getLogger(__name__)
CORE_WATTS = 4.0
"""Assumed power of a busy CPU core, as codecarbon 3.3 assumes for a thread of a CPU that it does not know."""
READ_SECONDS = 20.0
"""Time between two readings, at least. RAPL's counters begin again at 0 after 65 kJ at the earliest."""
JOULES_PER_KWH = 3.6e6
RAPL, NVML, UNKNOWN = "RAPL counters", "NVML counter", "unknown"
POWERCAP = Path("/sys/class/powercap")

Counter = Callable[[], float]
"""Returns the joules that were used so far, from any beginning."""


@dataclass
class DeviceEnergy:
    """Energy of the devices of one name. ``seconds``: time that the run held them, summed over the devices.

    ``method``: RAPL, NVML, the power assumed, or UNKNOWN, with no ``joules``.
    """

    device: str
    method: str
    seconds: float = 0.0
    joules: float = 0.0

    @property
    def is_measured(self) -> bool:
        """True for the energy of counters."""
        return self.method in (RAPL, NVML)

    @property
    def source(self) -> str:
        """Origin of the figure, for people to read."""
        if self.method == UNKNOWN:
            return "not known"
        return f"measured by {self.method}" if self.is_measured else f"estimated at {self.method}"


def merge(parts: Iterable[DeviceEnergy]) -> list[DeviceEnergy]:
    """Return the sums by device and method, in order of appearance."""
    sums: dict[tuple[str, str], DeviceEnergy] = {}
    for part in parts:
        total = sums.setdefault((part.device, part.method), DeviceEnergy(part.device, part.method))
        total.seconds += part.seconds
        total.joules += part.joules
    return list(sums.values())


def energy_metrics(energy: Iterable[DeviceEnergy]) -> dict[str, float]:
    """Return the kWh that were measured and those that were estimated, each unless it is 0."""
    sums = dict.fromkeys(("energy/measured_kwh", "energy/estimated_kwh"), 0.0)
    for part in energy:
        sums["energy/measured_kwh" if part.is_measured else "energy/estimated_kwh"] += part.joules / JOULES_PER_KWH
    return {name: value for name, value in sums.items() if value}


def energy_text(kwh: float) -> str:
    """Return an amount of energy with its unit, kWh or Wh."""
    return f"{kwh:.3g} kWh" if kwh >= 1e-3 else f"{1000 * kwh:.3g} Wh"


class EnergyMeter:
    """Measures the devices of all processes of a run, from its creation on.

    A process measures its own GPU, and the first one on each host the counters of the CPU; without such counters each
    process estimates from its own CPU time.
    """

    def __init__(self, distributed: Distributed) -> None:
        self._distributed, first = distributed, distributed.is_first_on_host
        sources = [(*_cpu_counter(first), float(first))]
        if distributed.device.type != "cpu":
            sources.append((*_gpu_counter(distributed.device), 1.0))
        self._used = [DeviceEnergy(device, method) for device, method, _, _ in sources]
        self._counters = [counter for _, _, counter, _ in sources]
        self._numbers = [number for _, _, _, number in sources]
        self._joules, self._mark = [counter() for counter in self._counters], time.monotonic()

    @property
    def sources(self) -> list[str]:
        """Each device of this process, and the origin of its figures."""
        return [f"{used.device}, {used.source}" for used in self._used]

    def read_if_due(self) -> None:
        """Read the counters, unless that was done within READ_SECONDS. To be called at least every minute."""
        if time.monotonic() - self._mark >= READ_SECONDS:
            self._read()

    def _read(self) -> None:
        """Add the time and the energy since the last reading. A counter that fails does not end the run."""
        now = time.monotonic()
        for i, used in enumerate(self._used):
            used.seconds += (now - self._mark) * self._numbers[i]
            try:
                before, self._joules[i] = self._joules[i], self._counters[i]()
                used.joules += max(self._joules[i] - before, 0.0)
            except Exception as error:
                log.warning("the energy of %s is measured no more: %s: %s", used.device, type(error).__name__, error)
                self._counters[i] = lambda: 0.0
        self._mark = now

    def collect(self) -> list[DeviceEnergy]:
        """Return the energy of all processes since the last call. Collective."""
        self._read()
        mine, self._used = self._used, [DeviceEnergy(used.device, used.method) for used in self._used]
        every = self._distributed.all_gather_text(json.dumps([asdict(used) for used in mine]))
        return merge(DeviceEnergy(**device) for text in every for device in json.loads(text))


def cpu_name() -> str:
    """Return the model of the CPU, as Linux names it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine() or "cpu"


def _cpu_counter(first: bool) -> tuple[str, str, Counter]:
    """Return the CPU's name, method and counter; one that stays at 0 where another process reads RAPL."""
    zones = []
    for path in sorted(POWERCAP.glob("intel-rapl:*")):
        with suppress(OSError, ValueError):  # often only root may read the counters
            name = (path / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                zones.append(_RaplZone(path))
    if not zones:
        return cpu_name(), f"{CORE_WATTS:g} W per busy core", lambda: CORE_WATTS * time.process_time()
    return cpu_name(), RAPL, lambda: sum(zone.joules() for zone in zones) if first else 0.0


class _RaplZone:
    """A counter of RAPL, which begins again at 0 above its range."""

    def __init__(self, path: Path) -> None:
        self._path, self._range = path / "energy_uj", int((path / "max_energy_range_uj").read_text())
        self._last, self._sum = int(self._path.read_text()), 0

    def joules(self) -> float:
        """Return the joules since the zone was opened."""
        now = int(self._path.read_text())
        self._sum += now - self._last + (self._range if now < self._last else 0)
        self._last = now
        return self._sum / 1e6


def _gpu_counter(device: torch.device) -> tuple[str, str, Counter]:
    """Return the name, method and counter of a GPU; one that stays at 0 if nothing is known of its power."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if pynvml is not None and device.type == "cuda":
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            return name, NVML, lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        except pynvml.NVMLError as error:
            log.info("%s: no counter of energy: %s", name, error)
    gpu = gpu_named(name)
    if gpu is None:
        return name, UNKNOWN, lambda: 0.0
    return name, f"{gpu.watts:g} W each", lambda: gpu.watts * time.monotonic()
