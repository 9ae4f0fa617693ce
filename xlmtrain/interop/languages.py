"""Language embeddings of a model, and where the embedding of one language goes without them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

LANGUAGES = "encoder.language_embeddings.weight"
POSITIONS = "encoder.position_embeddings.weight"
_ADDED_TO_ALL = POSITIONS, "encoder.token_type_embeddings.weight"
"""Tables of which every token gets one row."""


def language_table(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Return the table whose rows can take over the embedding of one language; None if there is none."""
    return next((name for name in _ADDED_TO_ALL if name in weights), None)
