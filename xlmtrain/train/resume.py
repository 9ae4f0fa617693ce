"""Restore a run from its newest intact checkpoint."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from xlmtrain.model.language_model import check_state_dict
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.parallel import load_weights
from xlmtrain.train.state import load_optimizer_tensors

log = logging.getLogger(__name__)


def resume(
    store: CheckpointManager,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    distributed: Distributed,
) -> dict[str, Any] | None:
    """Load weights, optimizer state and loss scale. Returns the saved progress, or None without a checkpoint.

    Every process reads for itself, from shared storage. Raises CheckpointError if the checkpoint does not fit the
    model, ConfigError if the processes did not find the same one.
    """
    failpoint("resume")
    checkpoint = store.latest()
    step = checkpoint.state["progress"]["step"] if checkpoint else 0
    distributed.assert_same({"newest step": step}, "checkpoints (the run directory must be on shared storage)")
    if checkpoint is None:
        return None
    check_state_dict(model, checkpoint.model, str(checkpoint.path))
    load_weights(model, checkpoint.model)
    load_optimizer_tensors(optimizer, model, checkpoint.optimizer)
    if scaler.is_enabled() and checkpoint.state["scaler"]:  # empty unless the run had fp16 before
        window = scaler.get_growth_interval()
        scaler.load_state_dict(checkpoint.state["scaler"])
        scaler.set_growth_interval(window)  # a setting, which may have changed
    if distributed.is_main:
        log.info("resumed from %s", checkpoint.path)
    progress: dict[str, Any] = checkpoint.state["progress"]
    return progress
