"""The machine, as far as training depends on it, and checks: does it have what the settings ask for?"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from xlmtrain.config.optim import FusedAdam
from xlmtrain.config.phases import phases_of
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Device, Precision, Sharding
from xlmtrain.diagnostics.doctor.requirements import package_problems
from xlmtrain.diagnostics.finding import Finding, error, info, warning
from xlmtrain.diagnostics.memory import parameter_count, phase_memory
from xlmtrain.optim.optimizer import APEX_SOURCE, is_pypi_apex
from xlmtrain.runtime.device import best_device, main_memory, system_file, usable_cores
from xlmtrain.text import bpe

_LEAST_SHARED_MEMORY = 1 << 30
_TRAINING_BYTES = 16  # of a parameter, its gradient and Adam's state, in fp32
_CHECKPOINT_BYTES = 12


@dataclass(frozen=True)
class InstalledGpu:
    """``capability``: CUDA's, (8, 0) for an A100; ``memory``: bytes."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class Machine:
    """``cores``: available to this process; ``threads``: of torch. ``flags``: features of the processor. ``memory``,
    ``shared_memory``: bytes in all. ``load``: processes ready to run, mean of the last minute. ``kernels``: GPU
    architectures that this torch was built for, like ``sm_80``. ``device``: the type that torch prefers."""

    cores: int
    threads: int
    flags: frozenset[str]
    memory: int
    shared_memory: int
    load: float = 0.0
    gpus: list[InstalledGpu] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    device: str = "cpu"

    def runs_on_gpu(self, device: Device) -> bool:
        """Return whether a run with ``train.device`` would use the GPUs."""
        return bool(self.gpus) and device is not Device.cpu


def this_machine() -> Machine:
    """Return the machine that this process runs on; a container's limits count as its size."""
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", system_file("/proc/cpuinfo"), re.MULTILINE)
    shared = Path("/dev/shm")
    return Machine(
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        flags=frozenset(flags[1].split() if flags else ()),
        memory=main_memory(),
        shared_memory=shutil.disk_usage(shared).total if shared.is_dir() else 0,
        load=os.getloadavg()[0],
        gpus=[InstalledGpu(gpu.name, (gpu.major, gpu.minor), gpu.total_memory) for gpu in gpus],
        kernels=torch.cuda.get_arch_list() if gpus else [],
        device=best_device(),
    )


def check_packages(config: Config) -> Iterator[Finding]:
    """Check the packages that xlmtrain asks for, and those whose names others have, too."""
    yield info(f"Python {platform.python_version()}, torch {torch.__version__}")
    yield from map(error, package_problems())
    if is_pypi_apex():
        severity = error if config.optim.fused is FusedAdam.apex else warning
        yield severity(
            "The installed package `apex` is a web toolkit of that name, not NVIDIA's.",
            f"pip uninstall apex; only optim.fused=apex needs NVIDIA's, built from {APEX_SOURCE}",
        )
    if bpe.fastBPE is None:
        yield info("fastBPE is not installed: text is split into the same subwords, more slowly")
    elif not hasattr(bpe.fastBPE, "fastBPE"):
        what = f"The module fastBPE ({bpe.fastBPE.__file__}) is something else: it has no class fastBPE."
        yield error(what, "pip uninstall its package")


def check_device(config: Config, machine: Machine) -> Iterator[Finding]:
    """Check that there are GPUs, or a CPU, which this torch supports and which can compute as asked."""
    device, precision = config.train.device, config.train.precision
    if device is Device.cuda and not machine.gpus:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no driver, or none is visible"
        yield error(f"train.device=cuda, but there is no GPU: {why}.", "nvidia-smi; CUDA_VISIBLE_DEVICES; or cpu")
    elif machine.runs_on_gpu(device):
        for gpu in machine.gpus:
            yield from _check_gpu(gpu, machine.kernels, precision)
    elif device not in (Device.auto, Device.cpu, machine.device):
        yield error(f"train.device={device.value}: torch finds no such device.", "cpu, or a build of torch for it")
    elif device is not Device.cpu and machine.device != "cpu":
        yield info(f"device: {machine.device}, on which xlmtrain has not been tested")
    else:
        yield info(f"device: CPU, {machine.cores} cores")
        yield from _check_cpu_precision(precision, bool(machine.flags & {"avx512_bf16", "amx_bf16", "bf16"}))


def _check_gpu(gpu: InstalledGpu, kernels: list[str], precision: Precision) -> Iterator[Finding]:
    major, minor = gpu.capability
    yield info(f"device: {gpu.name}, sm_{major}{minor}, {gpu.memory / 1e9:.0f} GB")
    if kernels and not {f"sm_{major}{minor}", f"sm_{major}0"} & set(kernels):
        what = f"This torch has no kernels for {gpu.name} (sm_{major}{minor}), but for {', '.join(kernels)}."
        yield error(what, "wheels for another CUDA, like pip --index-url https://download.pytorch.org/whl/cu126")
    if precision is Precision.bf16 and major < 8:
        yield error(f"train.precision=bf16: {gpu.name} has no bf16.", "train.precision=auto takes fp16 there")
    if precision is Precision.fp16 and major >= 8:
        yield warning(f"{gpu.name} has bf16, which needs no loss scale.", "train.precision=auto")


def _check_cpu_precision(precision: Precision, fast_bf16: bool) -> Iterator[Finding]:
    """Check the precision; ``fast_bf16``: the processor has instructions for bf16, which others emulate."""
    if precision is Precision.fp16:
        yield error("train.precision=fp16 is for GPUs; CPUs compute it slowly.", "train.precision=auto")
    elif precision is Precision.bf16 and not fast_bf16:
        what = "train.precision=bf16, but this processor has neither avx512_bf16 nor amx_bf16: fp32 is faster."
        yield error(what, "train.precision=fp32")
    elif precision is not Precision.bf16 and fast_bf16:
        yield warning("This processor has bf16, twice as fast for models like small_cpu's.", "train.precision=bf16")


def check_threads(machine: Machine, processes: int, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Check for more threads than cores, threads that wait by spinning, and a machine that is busy already."""
    # By default, torchrun gives each of several processes one thread.
    threads = machine.threads if processes == 1 or "OMP_NUM_THREADS" in environment else 1
    if threads * processes > machine.cores:
        count = f"{threads * processes} threads, of {processes} processes,"
        advice = f"OMP_NUM_THREADS={max(machine.cores // processes, 1)}"
        yield error(f"{count} would compute on {machine.cores} cores: they will slow each other down.", advice)
    if environment.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE" and machine.load > machine.cores / 2:
        what = "OMP_WAIT_POLICY=ACTIVE: waiting threads keep other programs from working."
        yield error(what, "unset it: the programs then set PASSIVE")
    if machine.load > 1.5 * machine.cores:
        what = f"{machine.load:.0f} processes want to compute on {machine.cores} cores already: training will be slow."
        yield warning(what, "see top for who they are")


def check_memory(
    config: Config, vocab_size: int, languages: int, machine: Machine, processes: int
) -> Iterator[Finding]:
    """Check the memory, on a CPU for weights, gradient and optimizer state only, and the shared memory for NCCL."""
    train, phases = config.train, phases_of(config)
    count = parameter_count(config, vocab_size, languages)
    if not machine.runs_on_gpu(train.device):
        needed = _TRAINING_BYTES * count * processes
        if needed > machine.memory:
            sizes = f"{needed / 1e9:.1f} GB, and {machine.memory / 1e9:.1f} GB are there"
            what = f"Weights, gradient and Adam's state need {sizes}."
            yield error(what, "a smaller model.dim or vocabulary, or fewer processes")
        return
    shards = 1 if train.sharding is Sharding.none else processes
    every = [phase.settings for phase in phases]
    memories = [(phase_memory(config, count, vocab_size, shards), config.micro_batch_tokens) for config in every]
    memory, micro_batch = max(memories, key=lambda pair: pair[0].total)
    there = min(gpu.memory for gpu in machine.gpus)
    need = f"about {memory.total / 1e9:.1f} GB needed on each GPU, {there / 1e9:.1f} GB are there"
    if memory.total <= there:
        yield info(f"memory: {need}")
    else:
        passing = (memory.activations + memory.logits) / 1e9
        lasting = (memory.weights + memory.gradients + memory.optimizer_state) / 1e9
        yield error(
            f"{need[0].upper()}{need[1:]}.",
            f"train.micro_batch_tokens below {micro_batch:,}: activations and logits take {passing:.1f} GB",
            f"train.sharding=full or a smaller model: weights, gradient and optimizer state take {lasting:.1f} GB",
        )
    if processes > 1 and machine.shared_memory < _LEAST_SHARED_MEMORY:
        what = f"/dev/shm has {machine.shared_memory / 1e6:.0f} MB: NCCL, which connects the GPUs, may not start."
        yield error(what, "in a container: docker run --ipc=host, or --shm-size=8g")


def check_disk(config: Config, vocab_size: int, languages: int, free: int | None = None) -> Iterator[Finding]:
    """Check the disk for the last checkpoints, the best one, and one being written. ``free``: bytes, else measured."""
    run = Path(config.run).absolute()
    place = next(path for path in (run, *run.parents) if path.exists())
    if not os.access(place, os.W_OK):
        yield error(f"run={config.run}: {place} cannot be written.", "another run=..., or ask for access to it")
        return
    train = config.train
    size = _CHECKPOINT_BYTES * parameter_count(config, vocab_size, languages)
    steps = phases_of(config)[-1].span.end
    count = train.keep_last + 2 + (steps // train.keep_every if train.keep_every else 0)
    free = shutil.disk_usage(place).free if free is None else free
    need = f"{count} checkpoints of {size / 1e6:,.0f} MB at most, {free / 1e6:,.0f} MB free"
    if count * size > free:
        yield error(f"run={config.run}: {need}.", "another disk, smaller train.keep_last, larger train.keep_every")
    else:
        yield info(f"disk: {need}")
