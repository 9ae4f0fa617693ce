"""Checks of the machine: does it have what the settings ask for?"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from xlmtrain.config.schema import Config, Device, FusedAdam, Precision, Sharding
from xlmtrain.diagnostics.doctor.machine import Machine
from xlmtrain.diagnostics.doctor.requirements import package_problems
from xlmtrain.diagnostics.finding import Finding, error, info, warning
from xlmtrain.diagnostics.plan.plan import estimate_memory, parameter_count
from xlmtrain.optim.optimizer import APEX_SOURCE, is_pypi_apex
from xlmtrain.text import bpe

_LEAST_SHARED_MEMORY = 1 << 30
_TRAINING_BYTES = 16  # of a parameter, its gradient and Adam's state, in fp32
_CHECKPOINT_BYTES = 12


def check_packages(config: Config) -> Iterator[Finding]:
    """Check what ``setup.cfg`` asks for, and packages whose names others have, too."""
    yield info(f"Python {platform.python_version()}, torch {torch.__version__}")
    yield from map(error, package_problems())
    if is_pypi_apex():
        make = error if config.optim.fused is FusedAdam.apex else warning
        yield make(
            "The installed package `apex` is a web toolkit of that name, not NVIDIA's.",
            f"pip uninstall apex; NVIDIA's is built from {APEX_SOURCE}, and only optim.fused=apex uses it",
        )
    if bpe.fastBPE is None:
        yield warning(
            "fastBPE is not installed: text cannot be prepared, nor sentences given to a model.",
            "make builds it; training on data that is prepared does not need it",
        )
    elif not hasattr(bpe.fastBPE, "fastBPE"):
        yield error(
            f"The installed module fastBPE ({bpe.fastBPE.__file__}) is something else: it has no class fastBPE.",
            "pip uninstall the package that it belongs to, then make",
        )


def check_device(config: Config, machine: Machine) -> Iterator[Finding]:
    """Check that there are GPUs, or a CPU, which this torch supports and which can compute as asked."""
    train, gpus = config.train, machine.gpus
    if train.device is Device.cuda and not gpus:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no driver, or none is visible"
        yield error(f"train.device=cuda, but there is no GPU: {why}.", "nvidia-smi; CUDA_VISIBLE_DEVICES; or cpu")
        return
    if train.device is Device.cpu or not gpus:
        yield info(f"device: CPU, {machine.cores} cores")
        yield from _check_cpu_precision(train.precision, machine)
        return
    for gpu in gpus:
        major, minor = gpu.capability
        yield info(f"device: {gpu.name}, sm_{major}{minor}, {gpu.memory / 1e9:.0f} GB")
        if machine.kernels and not any(name in (f"sm_{major}{minor}", f"sm_{major}0") for name in machine.kernels):
            yield error(
                f"This torch has no kernels for {gpu.name} (sm_{major}{minor}), but for {', '.join(machine.kernels)}.",
                "install the wheels for another CUDA, like --index-url https://download.pytorch.org/whl/cu126",
            )
        if train.precision is Precision.bf16 and gpu.capability < (8, 0):
            yield error(f"train.precision=bf16: {gpu.name} has no bf16.", "train.precision=auto takes fp16 there")
        if train.precision is Precision.fp16 and gpu.capability >= (8, 0):
            yield warning(f"{gpu.name} has bf16, which needs no loss scale.", "train.precision=auto")


def _check_cpu_precision(precision: Precision, machine: Machine) -> Iterator[Finding]:
    if precision is Precision.fp16:
        yield error("train.precision=fp16 is for GPUs; CPUs compute it slowly.", "train.precision=auto")
    if precision is Precision.bf16 and not machine.fast_bf16:
        yield error(
            "train.precision=bf16, but this processor has neither avx512_bf16 nor amx_bf16: it is slower than fp32.",
            "train.precision=fp32",
        )
    if precision in (Precision.fp32, Precision.auto) and machine.fast_bf16:
        yield warning(
            "This processor has bf16, which computes models like small_cpu's twice as fast.", "train.precision=bf16"
        )


def check_threads(machine: Machine, processes: int, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Check for more threads than cores, threads that wait by spinning, and a machine that is busy already."""
    # By default, torchrun gives each of several processes one thread.
    threads = machine.threads if processes == 1 or "OMP_NUM_THREADS" in environment else 1
    if threads * processes > machine.cores:
        yield error(
            f"{threads * processes} threads, of {processes} processes, would compute on {machine.cores} cores: they "
            "will slow each other down.",
            f"OMP_NUM_THREADS={max(machine.cores // processes, 1)}",
        )
    if environment.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE" and machine.load > machine.cores / 2:
        yield error(
            "OMP_WAIT_POLICY=ACTIVE on cores that others use, too: waiting threads keep others from working.",
            "unset it: the programs then set PASSIVE",
        )
    if machine.load > 1.5 * machine.cores:
        yield warning(
            f"{machine.load:.0f} processes want to compute on {machine.cores} cores already: training will be slow.",
            "see top for who they are",
        )


def check_memory(
    config: Config, vocab_size: int, languages: int, machine: Machine, processes: int
) -> Iterator[Finding]:
    """Check the memory, on a CPU for weights, gradient and optimizer state only, and the shared memory for NCCL."""
    count = parameter_count(config.model, vocab_size, languages)
    if not machine.gpus or config.train.device is Device.cpu:
        needed = _TRAINING_BYTES * count * processes
        if needed > machine.memory:
            yield error(
                f"Weights, gradient and Adam's state need {needed / 1e9:.1f} GB, and {machine.memory / 1e9:.1f} GB "
                "are there.",
                "a smaller model.dim or vocabulary, or fewer processes",
            )
        return
    micro_batch = config.train.micro_batch_tokens or config.data.sub_batch_tokens
    shards = 1 if config.train.sharding is Sharding.none else processes
    memory = estimate_memory(config.model, count, vocab_size, micro_batch, micro_batch * config.mask.prob, shards)
    there = min(gpu.memory for gpu in machine.gpus)
    need = f"about {memory.total / 1e9:.1f} GB needed on each GPU, {there / 1e9:.1f} GB are there"
    if memory.total <= there:
        yield info(f"memory: {need}")
    else:
        yield error(
            f"{need[0].upper()}{need[1:]}.",
            f"train.micro_batch_tokens below {micro_batch:,}: activations and logits take "
            f"{(memory.activations + memory.logits) / 1e9:.1f} GB",
            "train.sharding=full, or a smaller model.dim or vocabulary: weights, gradient and optimizer state take "
            f"{(memory.weights + memory.gradients + memory.optimizer_state) / 1e9:.1f} GB",
        )
    if processes > 1 and machine.shared_memory < _LEAST_SHARED_MEMORY:
        yield error(
            f"/dev/shm has {machine.shared_memory / 1e6:.0f} MB: NCCL, which connects the GPUs, may not start.",
            "in a container: docker run --ipc=host, or --shm-size=8g",
        )


def check_disk(config: Config, vocab_size: int, languages: int, free: int | None = None) -> Iterator[Finding]:
    """Check the disk for the last checkpoints, the best one, and one being written. ``free``: bytes, else measured."""
    place = Path(config.run).absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        yield error(f"run={config.run}: {place} cannot be written.", "another run=..., or ask for access to it")
        return
    train = config.train
    size = _CHECKPOINT_BYTES * parameter_count(config.model, vocab_size, languages)
    count = train.keep_last + 2 + (train.steps // train.keep_every if train.keep_every else 0)
    free = shutil.disk_usage(place).free if free is None else free
    if count * size > free:
        yield error(
            f"run={config.run}: {count} checkpoints of {size / 1e6:,.0f} MB need {count * size / 1e6:,.0f} MB, and "
            f"{free / 1e6:,.0f} MB are free.",
            "another disk, a smaller train.keep_last or, for checkpoints that are kept for ever, a larger keep_every",
        )
    else:
        yield info(f"disk: {count} checkpoints of {size / 1e6:,.0f} MB at most, {free / 1e6:,.0f} MB free")
