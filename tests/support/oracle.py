"""Numbers that the original XLM computed, as committed in ``tests/fixtures``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from xlmtrain.data.batch import Batch


class Oracle:
    """Numbers that the original XLM computed: ``oracle["cases.tlm.x"]`` is a tensor, ``oracle.numbers`` the rest."""

    def __init__(self, directory: Path) -> None:
        self._tensors = load_file(directory / "oracle.safetensors")
        self.numbers: dict[str, Any] = json.loads((directory / "oracle.json").read_text(encoding="utf-8"))

    def __getitem__(self, name: str) -> torch.Tensor:
        """A tensor; ids and flags as int64."""
        tensor = self._tensors[name]
        return tensor.long() if tensor.dtype == torch.uint8 else tensor

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under ``prefix``, which is taken off their names."""
        return {name[len(prefix) :]: self[name] for name in self._tensors if name.startswith(prefix)}


def as_batch(case: dict[str, Any], causal: bool) -> Batch:
    """The oracle's case, time first, as one of our batches; targets in the oracle's order."""
    tokens = case["x"].T.contiguous()
    rows, length = tokens.shape
    positions = case.get("positions")
    positions = torch.arange(length).expand(rows, length) if positions is None else positions.T.contiguous()
    column, row = torch.nonzero(case["pred_mask"], as_tuple=True)
    lengths = case["lengths"] if (case["lengths"] < length).any() else None
    index = row * length + column
    return Batch("clm" if causal else "mlm", tokens, positions, case["langs"].T.contiguous(), lengths, index, case["y"])
