"""Memory for large temporary tensors, used again in every step.

Reference: ``torch.empty(shape, dtype=dtype)``. Freed and allocated anew in every step, a tensor of the size of the
output layer makes the heap grow: the freed block is too small by the bytes that alignment takes.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch


class ScratchBuffer:
    """Reusable memory for one CPU tensor at a time.

    Limits: the memory is as large as the largest tensor so far, and is never freed. While a tensor that was given out,
    or a view of it, is still in use, the next one gets memory of its own. Copies of a buffer start empty.
    """

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None
        self._loan: weakref.ref[np.ndarray[Any, Any]] | None = None

    def get(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialized tensor, in the buffer if that is free."""
        if self._loan is not None and self._loan() is not None:
            return torch.empty(shape, dtype=dtype)
        size = prod(shape) * dtype.itemsize
        if self._memory is None or len(self._memory) < size:
            self._memory = torch.empty(size, dtype=torch.uint8)
        # Every tensor on top of this array keeps it alive: when the array is gone, the memory is free.
        array = self._memory.numpy()
        self._loan = weakref.ref(array)
        return torch.from_numpy(array)[:size].view(dtype).view(*shape)

    def __reduce__(self) -> tuple[type[ScratchBuffer], tuple[()]]:
        return ScratchBuffer, ()
