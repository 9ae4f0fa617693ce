"""What the C library does with memory that was freed."""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3), which glibc has.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def disable_malloc_trim() -> None:
    """Let this process keep the memory that it frees, for what it needs next, instead of handing it back to the kernel.

    Every step makes the same large tensors anew. glibc takes each from the kernel, page by page and zeroed, and gives
    it back: a fifth of the time of a step on a CPU. Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
        mallopt(_M_MMAP_MAX, 0)  # everything from the heap
