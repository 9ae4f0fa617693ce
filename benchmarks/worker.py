"""Process in which one system trains."""

from __future__ import annotations

import importlib
import traceback
import zlib
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.protocol import BatchFeed, Failure, System, SystemInfo
from benchmarks.workloads import Workload, settings
from xlmtrain.config.schema import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.model.language_model import LanguageModel


@dataclass(frozen=True)
class SystemSpec:
    """Module with the training program, its precision, and use of torch.compile."""

    module: str
    precision: Precision
    compiled: bool

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the matrix products."""
        return {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}.get(self.precision, torch.float32)


_PROGRAMS = {
    "ours": "benchmarks.ours",
    "hf-loop": "benchmarks.hf_loop",
    "hf-trainer": "benchmarks.hf_trainer",
    "xlm": "benchmarks.xlm_baseline",
}
SYSTEMS = {
    f"{name}-{precision.value}{'-compiled' if compiled else ''}": SystemSpec(module, precision, compiled)
    for name, module in _PROGRAMS.items()
    for precision in (Precision.fp32, Precision.bf16, *([Precision.fp16] if name == "ours" else []))
    for compiled in ((False,) if name == "xlm" else (False, True))
}


def serve(connection: Connection, name: str, workload: Workload, data: Path, device: torch.device) -> None:
    """Send the system's info, then train on request. An error is sent as a Failure, so that the others continue."""
    try:
        _serve(connection, SYSTEMS[name], workload, data, device)
    except Exception as error:
        traceback.print_exc()
        with suppress(OSError):  # the runner may have ended
            connection.send(Failure(f"{type(error).__name__}: {error}"))


def _serve(connection: Connection, spec: SystemSpec, workload: Workload, data: Path, device: torch.device) -> None:
    if device.type == "cpu":
        torch.set_num_threads(1)
    config = settings(workload, data, spec.precision, spec.compiled)
    dataset = Dataset(data)
    loader = Loader(config, dataset)
    torch.manual_seed(0)
    weights = LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))
    # Imported by name, so that no process holds the libraries of another system in memory.
    system: System = importlib.import_module(spec.module).make_system(config, weights, device)
    del weights
    connection.send(system_info(system, loader, device))
    system.train(BatchFeed(connection, loader.steps(0, 10**9, loader.sampler.initial_state()), device))


def system_info(system: System, loader: Loader, device: torch.device) -> SystemInfo:
    """Return what must be equal for all systems; the model is moved to ``device``."""
    (batch,) = loader.make(0, loader.sampler.initial_state()).batches
    system.model.to(device).eval()
    with torch.no_grad():
        loss = system.loss(batch.to(device))
    system.model.train()
    return SystemInfo(
        parameters=sum(parameter.numel() for parameter in system.model.parameters()),
        batch_checksum=zlib.crc32(batch.tokens.numpy().tobytes() + batch.targets.numpy().tobytes()),
        first_loss=loss,
    )
