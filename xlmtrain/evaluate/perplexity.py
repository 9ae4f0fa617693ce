"""Perplexity and accuracy on validation sets, split across processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from xlmtrain.config.train import Precision
from xlmtrain.data.batch import dummy_batch
from xlmtrain.data.validation import ValidationSet
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.device import sum_dtype
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.failpoints import failpoint
from xlmtrain.runtime.precision import autocast, eval_mode
from xlmtrain.runtime.process import Interrupted


def evaluate_perplexity(
    model: LanguageModel,
    sets: list[ValidationSet],
    precision: Precision,
    distributed: Distributed,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Return ``{split}/{key}_{objective}_ppl`` and ``_acc`` of each set, and the means of each objective.

    ppl = exp(summed negative log-likelihood / targets). acc = % of targets whose most likely token is right. Means over
    keys are arithmetic, as in the original XLM. ``stop`` is called before every batch; if it returns True on any rank,
    all ranks raise Interrupted at the end of the current set. All ranks raise if one fails.
    """
    metrics: dict[str, float] = {}
    groups: dict[str, list[float]] = {}
    for chosen in sets:
        counts = distributed.run_on_all(partial(_count, model, chosen, precision, distributed, stop))
        loss, hits, targets, stopped = distributed.all_reduce_sum([*counts, float(stop())])
        if stopped:
            raise Interrupted
        values = {"ppl": math.exp(min(loss / max(targets, 1.0), 700.0)), "acc": 100.0 * hits / max(targets, 1.0)}
        split = chosen.name.partition("/")[0]
        for kind, value in values.items():
            metrics[f"{chosen.name}_{kind}"] = value
            groups.setdefault(f"{split}/{chosen.objective}_{kind}", []).append(value)
    return metrics | {name: sum(values) / len(values) for name, values in groups.items()}


def _count(
    model: LanguageModel,
    chosen: ValidationSet,
    precision: Precision,
    distributed: Distributed,
    stop: Callable[[], bool],
) -> tuple[float, float, float]:
    """Return the summed loss, right predictions and targets of this process's batches."""
    loss, hits = torch.zeros(2, dtype=sum_dtype(distributed.device), device=distributed.device)
    targets = 0
    for mine in distributed.in_step(chosen.batches(distributed.rank, distributed.world_size), stop):
        failpoint("evaluate")
        batch = (mine or dummy_batch(targets=0)).to(distributed.device)
        with eval_mode(model), autocast(precision, distributed.device):
            for logits, expected in model.logits_in_parts(batch):
                loss += F.cross_entropy(logits, expected, reduction="sum")
                hits += (logits.argmax(dim=1) == expected).sum()
        targets += len(batch.targets)
    return loss.item(), hits.item(), float(targets)
