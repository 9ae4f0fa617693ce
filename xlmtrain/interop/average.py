"""The mean of the weights of several checkpoints of a run, which is often better than each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from xlmtrain.errors import CheckpointError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.run import read_run


def average_checkpoints(paths: Sequence[Path]) -> PretrainedBundle:
    """The last one's model with the mean of all their weights, added up in double precision (Izmailov et al. 2018 with
    equal weights).

    Raises CheckpointError if one is damaged or of another shape.
    """
    sums: dict[str, torch.Tensor] = {}
    for path in paths:
        saved = read_run(path)
        shapes = {name: weight.shape for name, weight in saved.weights.items()}
        if sums and shapes != {name: weight.shape for name, weight in sums.items()}:
            raise CheckpointError(f"{path}: its weights are not those of {paths[0]}")
        for name, weight in saved.weights.items():
            sums[name] = weight.double() if name not in sums else sums[name] + weight
    mean = {name: (total / len(paths)).to(saved.weights[name].dtype) for name, total in sums.items()}
    source = f"the mean of {', '.join(str(path) for path in paths)}"
    return replace(saved, weights=mean, history=replace(saved.history, source=source))
