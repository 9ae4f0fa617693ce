"""Memory that is used again."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch


class Room:
    """Memory for one large tensor of a CPU that every step makes anew, and needs for a part of the step.

    The heap seldom finds the place of the last one again: that is too small by the bytes that aligning takes, unless a
    neighbour is free as well, and so the heap grows.
    """

    def __init__(self) -> None:
        self._storage: torch.UntypedStorage | None = None

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialized tensor: in this room, unless one is there that somebody still has."""
        needed = prod(shape) * dtype.itemsize
        if self._storage is None or self._storage.nbytes() < needed:
            self._storage = torch.UntypedStorage(needed)
        if torch._C._storage_Use_Count(self._storage._cdata) > 1:  # type: ignore[attr-defined]
            return torch.empty(shape, dtype=dtype)
        return torch.empty(0, dtype=dtype).set_(self._storage)[: prod(shape)].view(*shape)
