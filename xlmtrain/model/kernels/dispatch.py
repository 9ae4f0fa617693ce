"""The one switch between the reference of a kernel and its version for CPUs."""

from __future__ import annotations

import torch


def use_cpu_kernels(x: torch.Tensor) -> bool:
    """Return whether ``x`` is a CPU tensor of 16 or 32 bits per number, as all kernels for CPUs need it.

    Everything else (GPUs, fp64) takes the references, which are torch's own operations; so does an exported graph,
    which other programs run. A kernel that cannot do more than that says so under "Limits", and takes its reference
    there.
    """
    return x.device.type == "cpu" and x.element_size() in (2, 4) and not torch.compiler.is_exporting()
