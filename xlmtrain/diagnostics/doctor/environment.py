"""The machine, against what the settings ask of it."""

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
from xlmtrain.diagnostics.plan.memory import memory_of
from xlmtrain.diagnostics.rules import Finding
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.optim.optimizer import APEX_SOURCE, is_pypi_apex
from xlmtrain.text import bpe

_SHARED_MEMORY = 1 << 30
_BYTES_TRAINING = 16
"""A parameter with its gradient and Adam's two moments, in fp32."""
_BYTES_SAVED = 12


def check_packages(config: Config) -> Iterator[str | Finding]:
    """What ``setup.cfg`` asks for, and packages of a name that others have, too."""
    yield f"Python {platform.python_version()}, torch {torch.__version__}"
    yield from map(Finding, package_problems())
    if is_pypi_apex():
        yield Finding(
            "The installed package `apex` is a web toolkit of that name, not NVIDIA's.",
            [f"pip uninstall apex; NVIDIA's is built from {APEX_SOURCE}, and only optim.fused=apex uses it"],
            grave=config.optim.fused is FusedAdam.apex,
        )
    if bpe.fastBPE is None:
        yield Finding(
            "fastBPE is not installed: text cannot be prepared, nor sentences given to a model.",
            ["make builds it; training on data that is prepared does not need it"],
            grave=False,
        )
    elif not hasattr(bpe.fastBPE, "fastBPE"):
        yield Finding(
            f"The installed module fastBPE ({bpe.fastBPE.__file__}) is something else: it has no class fastBPE.",
            ["pip uninstall the package that it belongs to, then make"],
        )


def check_device(config: Config, machine: Machine) -> Iterator[str | Finding]:
    """The GPUs: there, of use to this torch, and able to compute as asked."""
    train, gpus = config.train, machine.gpus
    if train.device is Device.cuda and not gpus:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no driver, or none is visible"
        yield Finding(f"train.device=cuda, but there is no GPU: {why}.", ["nvidia-smi; CUDA_VISIBLE_DEVICES; or cpu"])
        return
    if train.device is Device.cpu or not gpus:
        yield f"device: CPU, {machine.cores} cores"
        yield from _cpu_precision(train.precision, machine)
        return
    for gpu in gpus:
        major, minor = gpu.capability
        yield f"device: {gpu.name}, sm_{major}{minor}, {gpu.memory / 1e9:.0f} GB"
        if machine.kernels and not any(name in (f"sm_{major}{minor}", f"sm_{major}0") for name in machine.kernels):
            yield Finding(
                f"This torch has no kernels for {gpu.name} (sm_{major}{minor}), but for {', '.join(machine.kernels)}.",
                ["install the wheels for another CUDA, like --index-url https://download.pytorch.org/whl/cu126"],
            )
        if train.precision is Precision.bf16 and gpu.capability < (8, 0):
            yield Finding(f"train.precision=bf16: {gpu.name} has no bf16.", ["train.precision=auto takes fp16 there"])
        if train.precision is Precision.fp16 and gpu.capability >= (8, 0):
            yield Finding(f"{gpu.name} has bf16, which needs no loss scale.", ["train.precision=auto"], grave=False)


def _cpu_precision(precision: Precision, machine: Machine) -> Iterator[str | Finding]:
    if precision is Precision.fp16:
        yield Finding("train.precision=fp16 is for GPUs; CPUs compute it slowly.", ["train.precision=auto"])
    if precision is Precision.bf16 and not machine.fast_bf16:
        yield Finding(
            "train.precision=bf16, but this processor has neither avx512_bf16 nor amx_bf16: it is slower than fp32.",
            ["train.precision=fp32"],
        )
    if precision in (Precision.fp32, Precision.auto) and machine.fast_bf16:
        yield Finding(
            "This processor has bf16, which computes models like small_cpu's twice as fast.",
            ["train.precision=bf16"],
            grave=False,
        )


def check_threads(machine: Machine, processes: int, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """As many threads as cores, over all processes, and none that waits by spinning."""
    # Unless it is told otherwise, torchrun gives each of several processes one thread.
    threads = machine.threads if processes == 1 or "OMP_NUM_THREADS" in environment else 1
    if threads * processes > machine.cores:
        yield Finding(
            f"{threads * processes} threads, of {processes} processes, would compute on {machine.cores} cores: they "
            "will stand in each other's way.",
            [f"OMP_NUM_THREADS={max(machine.cores // processes, 1)}"],
        )
    if environment.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE" and machine.load > machine.cores / 2:
        yield Finding(
            "OMP_WAIT_POLICY=ACTIVE on cores that others use, too: waiting threads keep others from working.",
            ["unset it: the programs then set PASSIVE"],
        )
    if machine.load > 1.5 * machine.cores:
        yield Finding(
            f"{machine.load:.0f} processes want to compute on {machine.cores} cores already: training will be slow.",
            ["see top for who they are"],
            grave=False,
        )


def check_memory(
    config: Config, vocab_size: int, languages: int, machine: Machine, processes: int
) -> Iterator[str | Finding]:
    """What training needs of a GPU, as far as it can be told beforehand; on a CPU weights, gradient and moments. And
    what processes of one machine share."""
    count = parameters(config, vocab_size, languages)
    if not machine.gpus or config.train.device is Device.cpu:
        needed = _BYTES_TRAINING * count * processes
        if needed > machine.memory:
            yield Finding(
                f"Weights, gradient and Adam's moments need {needed / 1e9:.1f} GB, and {machine.memory / 1e9:.1f} GB "
                "are there.",
                ["a smaller model.dim or vocabulary, or fewer processes"],
            )
        return
    at_once = config.train.micro_batch_tokens or config.data.sub_batch_tokens
    shards = 1 if config.train.sharding is Sharding.none else processes
    memory = memory_of(config.model, count, vocab_size, at_once, at_once * config.mask.prob, shards)
    there = min(gpu.memory for gpu in machine.gpus)
    told = f"about {memory.total / 1e9:.1f} GB needed on each GPU, {there / 1e9:.1f} GB are there"
    if memory.total <= there:
        yield f"memory: {told}"
    else:
        yield Finding(
            f"{told[0].upper()}{told[1:]}.",
            [
                f"train.micro_batch_tokens below {at_once:,}: activations and logits take "
                f"{(memory.activations + memory.logits) / 1e9:.1f} GB",
                "train.sharding=full, or a smaller model.dim or vocabulary: weights, gradient and moments take "
                f"{(memory.weights + memory.gradients + memory.moments) / 1e9:.1f} GB",
            ],
        )
    if processes > 1 and machine.shared_memory < _SHARED_MEMORY:
        yield Finding(
            f"/dev/shm has {machine.shared_memory / 1e6:.0f} MB: NCCL, by which the GPUs talk, may not start.",
            ["in a container: docker run --ipc=host, or --shm-size=8g"],
        )


def check_disk(config: Config, vocab_size: int, languages: int, free: int | None = None) -> Iterator[str | Finding]:
    """Room for the checkpoints: the last ones, the best one, and one being written. ``free``: bytes, else measured."""
    place = Path(config.run).absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        yield Finding(f"run={config.run}: {place} cannot be written.", ["another run=..., or ask for access to it"])
        return
    train = config.train
    one = _BYTES_SAVED * parameters(config, vocab_size, languages)
    count = train.keep_last + 2 + (train.steps // train.keep_every if train.keep_every else 0)
    free = shutil.disk_usage(place).free if free is None else free
    if count * one > free:
        yield Finding(
            f"run={config.run}: {count} checkpoints of {one / 1e6:,.0f} MB need {count * one / 1e6:,.0f} MB, and "
            f"{free / 1e6:,.0f} MB are free.",
            ["another disk, a smaller train.keep_last or, for checkpoints that are kept for ever, a larger keep_every"],
        )
    else:
        yield f"disk: {count} checkpoints of {one / 1e6:,.0f} MB at most, {free / 1e6:,.0f} MB free"


def parameters(config: Config, vocab_size: int, languages: int) -> int:
    """How many the model has; it is not made for that."""
    with torch.device("meta"):
        model = LanguageModel(config.model, vocab_size, languages)
    return sum(parameter.numel() for parameter in model.parameters())
