"""Memory for one large tensor: never two in it at a time."""

from __future__ import annotations

import torch

from xlmtrain.model.room import Room


def test_a_room_is_lent_to_one_at_a_time() -> None:
    room = Room()
    place = room.take((2, 3), torch.float32).data_ptr()
    first = room.take((2, 3), torch.float32)  # the one before is gone
    assert first.data_ptr() == place
    assert room.take((4, 3), torch.bfloat16).data_ptr() != place
    part = first.zero_()[1:]
    del first
    room.take((2, 3), torch.float32).fill_(1.0)
    assert not part.any()
    del part
    smaller = room.take((4, 3), torch.bfloat16)
    assert (smaller.data_ptr(), smaller.shape, smaller.dtype) == (place, (4, 3), torch.bfloat16)
    larger = room.take((5, 5), torch.float32).fill_(2.0)
    smaller.zero_()
    assert (larger == 2.0).all()
