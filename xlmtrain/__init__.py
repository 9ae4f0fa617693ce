"""Pretraining of bilingual masked language models, from raw text to a model in use.

import xlmtrain

model = xlmtrain.load("runs/quickstart")
model.fill_mask("Die Katze <mask> auf dem Sofa.", lang="de", k=5)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlmtrain.finetuned import load_finetuned
    from xlmtrain.pretrained import load

__all__ = ["load", "load_finetuned"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # Imported on first use: processes that prepare text import this package too, and do not need torch.
    if name == "load":
        return importlib.import_module("xlmtrain.pretrained").load
    if name == "load_finetuned":
        return importlib.import_module("xlmtrain.finetuned").load_finetuned
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
