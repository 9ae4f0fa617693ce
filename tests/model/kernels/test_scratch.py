"""Reusable memory: never two tensors in it at a time."""

from __future__ import annotations

import torch

from xlmtrain.model.kernels.scratch import ScratchBuffer


def test_memory_is_given_out_to_one_tensor_at_a_time() -> None:
    scratch = ScratchBuffer()
    place = scratch.get((2, 3), torch.float32).data_ptr()
    first = scratch.get((2, 3), torch.float32)  # the one before is gone
    assert first.data_ptr() == place
    assert scratch.get((4, 3), torch.bfloat16).data_ptr() != place
    part = first.zero_()[1:]
    del first
    scratch.get((2, 3), torch.float32).fill_(1.0)
    assert not part.any()
    del part
    smaller = scratch.get((4, 3), torch.bfloat16)
    assert (smaller.data_ptr(), smaller.shape, smaller.dtype) == (place, (4, 3), torch.bfloat16)
    larger = scratch.get((5, 5), torch.float32).fill_(2.0)
    smaller.zero_()
    assert (larger == 2.0).all()
