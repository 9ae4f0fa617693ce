"""Many dimensions on a sheet of paper."""

from __future__ import annotations

import numpy as np


def pca_2d(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """``vectors`` (N, D) in the plane of their two principal components, (N, 2), and the share of the variance there.

    Of the signs, which are free, those are taken that make each component's greatest entry positive.
    """
    centred = vectors - vectors.mean(axis=0)
    _, sizes, components = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    plane = components[:2]
    greatest = plane[np.arange(len(plane)), np.abs(plane).argmax(axis=1)]
    share = float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-300))
    return centred @ (plane * np.sign(greatest)[:, None]).T, share
