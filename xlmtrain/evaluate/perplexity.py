"""Perplexity and accuracy on validation text, shared out over the processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from xlmtrain.config.schema import Precision
from xlmtrain.data.validation import ValidationSet
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.precision import autocast
from xlmtrain.runtime.process import Interrupted


def _go_on() -> bool:
    return False


def evaluate(
    model: LanguageModel,
    sets: list[ValidationSet],
    precision: Precision,
    distributed: Distributed,
    stop: Callable[[], bool] = _go_on,
) -> dict[str, float]:
    """``{split}/{key}_{objective}_ppl`` and ``_acc`` of each set, and their means over the sets of an objective.

    ppl = exp(summed negative log-likelihood / targets); acc = 100 * targets whose most likely token is the right one /
    targets. The mean over languages is the arithmetic one, as the ancestor's. ``stop`` is asked before every batch; if
    it says so on any process, all of them raise Interrupted at the end of the set at hand. If one fails, all of them
    raise: see :meth:`~xlmtrain.runtime.distributed.Distributed.run_on_all`.
    """
    figures: dict[str, float] = {}
    groups: dict[str, list[float]] = {}
    was_training = model.training
    model.eval()
    for chosen in sets:
        counts = distributed.run_on_all(partial(_count, model, chosen, precision, distributed, stop))
        loss, hits, targets, stopped = distributed.all_reduce_sum([*counts, float(stop())])
        if stopped:
            model.train(was_training)
            raise Interrupted
        values = {"ppl": math.exp(min(loss / max(targets, 1.0), 700.0)), "acc": 100.0 * hits / max(targets, 1.0)}
        for what, value in values.items():
            figures[f"{chosen.name}_{what}"] = value
            split = chosen.name.partition("/")[0]
            groups.setdefault(f"{split}/{chosen.objective}_{what}", []).append(value)
    model.train(was_training)
    return figures | {name: sum(values) / len(values) for name, values in groups.items()}


@torch.no_grad()
def _count(
    model: LanguageModel,
    chosen: ValidationSet,
    precision: Precision,
    distributed: Distributed,
    stop: Callable[[], bool],
) -> tuple[float, float, float]:
    """Summed loss, hits and targets over this process's batches."""
    loss = torch.zeros((), dtype=torch.float64, device=distributed.device)
    hits = torch.zeros((), dtype=torch.float64, device=distributed.device)
    targets = 0
    for batch in chosen.batches(distributed.rank, distributed.world_size):
        failpoint("evaluate")
        if stop():
            break
        batch = batch.to(distributed.device)
        with autocast(precision, distributed.device):
            logits = model.logits(batch)
        loss += F.cross_entropy(logits, batch.targets, reduction="sum")
        hits += (logits.argmax(dim=1) == batch.targets).sum()
        targets += len(batch.targets)
    return loss.item(), hits.item(), float(targets)
