"""Memory that was freed is used again, once the heap has found its size."""

from __future__ import annotations

import ctypes

import pytest

from tests.support import programs

PROGRAM = """
import resource, sys
import torch
from xlmtrain.runtime.process import disable_malloc_trim

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(megabytes << 18) for megabytes in (20, 70, 20, 70)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

disable_malloc_trim(torch.device(sys.argv[1]))
print([faults() for _ in range(20)][-1])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_memory_that_was_freed_is_used_again_where_a_cpu_trains() -> None:
    def faults(device: str) -> int:
        return int(programs.run("-c", PROGRAM, device).stdout)

    assert faults("cpu") < 1000  # pages of 4 kB: 180 MB are 46,080
    assert faults("cuda") > 20_000
