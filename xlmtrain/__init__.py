"""Pretraining of bilingual masked language models, from raw text to a model in use.

import xlmtrain

model = xlmtrain.load("runs/quickstart")
model.fill_mask("Die Katze <mask> auf dem Sofa.", lang="de", k=5)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlmtrain.pretrained import load

__all__ = ["load"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # Imported on first use: processes that prepare text import this package too, and do not need torch.
    if name == "load":
        return importlib.import_module("xlmtrain.pretrained").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
