"""Weights, gradients and moments shared out over the processes (torch's FSDP2), for models that do not fit otherwise.

A sharded tensor is a DTensor: each process holds some rows of it. Files and everything but the steps of training know
whole tensors only; :func:`whole_tensors`, :func:`whole_model` and :func:`share_of` lead from one to the other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from xlmtrain.config.schema import Precision, ReduceDtype, Sharding, TrainConfig
from xlmtrain.errors import ConfigError
from xlmtrain.objective import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.precision import HALF


def shard(model: LanguageModel, config: TrainConfig, precision: Precision, distributed: Distributed) -> None:
    """Replace the weights by this process's shares of them, on its device.

    A block is put together when it is needed, and taken apart again; the embeddings and the output layer stay together
    from the beginning of a micro-batch to the end. Raises ConfigError if the hosts have unlike numbers of processes.
    """
    mesh = _mesh(config.sharding, distributed)
    policy = MixedPrecisionPolicy(reduce_dtype=HALF.get(precision) if config.reduce_dtype is ReduceDtype.half else None)
    for block in model.encoder.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _mesh(sharding: Sharding, distributed: Distributed) -> DeviceMesh:
    if sharding is Sharding.full:
        return init_device_mesh(distributed.device.type, (distributed.world_size,))
    local = processes_of_a_host(distributed.world_size)
    return init_device_mesh(
        distributed.device.type, (distributed.world_size // local, local), mesh_dim_names=("hosts", "processes")
    )


def processes_of_a_host(world_size: int) -> int:
    """As torchrun says. Raises ConfigError if the processes are not so many on every host."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    if world_size % local:
        raise ConfigError(
            f"train.sharding=hybrid: {world_size} processes, {local} on this host; start as many on every host"
        )
    return local


def replicas(sharding: Sharding, world_size: int) -> list[list[int]]:
    """Ranks that hold the same weights, group by group."""
    if sharding is Sharding.none:
        return [list(range(world_size))]
    count = world_size if sharding is Sharding.full else processes_of_a_host(world_size)
    return [list(range(first, world_size, count)) for first in range(count)]


def whole_tensors(tensors: Mapping[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """The tensors, put together one by one where they are sharded, those on the host; none if not to ``keep``.

    Every process has to call it.
    """
    result = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
        if keep:
            result[name] = whole
    return result


def whole_model(model: LanguageModel) -> LanguageModel:
    """``model`` itself, or a copy of it with whole weights if they are sharded, which every process has to call for."""
    weights = model.state_dict()
    if not any(isinstance(weight, DTensor) for weight in weights.values()):
        return model
    with torch.device("meta"):
        copy = LanguageModel(model.config, model.vocab_size, model.languages)
    whole = {name: w.full_tensor() if isinstance(w, DTensor) else w for name, w in weights.items()}
    copy.load_state_dict(whole, assign=True)
    return copy.train(model.training)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of ``tensor``."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_number(tensor: torch.Tensor) -> torch.Tensor:
    """A number that was computed from shares, on every process, which all have to call for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's share of ``whole`` as it has one of ``like``; ``whole`` itself on its device if that is whole."""
    if isinstance(like, DTensor) and whole.shape == like.shape:
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return whole.to(like.device)


@torch.no_grad()
def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Put whole ``weights`` into a model, sharded or not, which they are known to fit."""
    for name, weight in model.state_dict().items():
        weight.copy_(share_of(weights[name], weight))
