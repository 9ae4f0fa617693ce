"""Putting a run back to where its newest sound checkpoint left it."""

from __future__ import annotations

import logging

import torch

from xlmtrain.data.sampling import SamplerState
from xlmtrain.model.language_model import LanguageModel, check_state_dict
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.checkpoint import CheckpointManager
from xlmtrain.train.parallel import load_weights
from xlmtrain.train.state import Progress, load_optimizer_tensors

log = logging.getLogger(__name__)


def resume(
    store: CheckpointManager,
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    start: SamplerState,
    distributed: Distributed,
) -> Progress:
    """Load weights, moments and loss scale; where the run stands, which is ``start`` if it has no checkpoint.

    Every process reads for itself, from storage they share. Raises CheckpointError if the checkpoint does not fit the
    model, ConfigError if the processes did not find the same one.
    """
    checkpoint = store.latest()
    step = checkpoint.state["progress"]["step"] if checkpoint else 0
    distributed.assert_same({"newest step": step}, "checkpoints (the run directory must be on shared storage)")
    if checkpoint is None:
        return Progress(cursors=start)
    check_state_dict(model, checkpoint.model, str(checkpoint.path))
    load_weights(model, checkpoint.model)
    load_optimizer_tensors(optimizer, model, checkpoint.optimizer)
    if scaler.is_enabled() and checkpoint.state["scaler"]:  # empty unless the run had fp16 before
        window = scaler.get_growth_interval()
        scaler.load_state_dict(checkpoint.state["scaler"])
        scaler.set_growth_interval(window)  # a setting, which may have changed
    if distributed.is_main:
        log.info("resumed from %s", checkpoint.path)
    return Progress.from_json(checkpoint.state["progress"])
