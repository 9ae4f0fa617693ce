"""Linear probe: multinomial logistic regression on fixed vectors.

Letters: N examples, D width, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

_ITERATIONS = 1000
_GRADIENT = 1e-7
"""Largest entry of the gradient at convergence."""


@dataclass(frozen=True)
class Probe:
    """A fitted probe: ``weights`` (C, D) and ``bias`` (C,), float64."""

    weights: torch.Tensor
    bias: torch.Tensor

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the most likely labels (N,) of ``vectors`` (N, D)."""
        return (vectors @ self.weights.T + self.bias).argmax(dim=1)


def fit_probe(vectors: torch.Tensor, targets: torch.Tensor, labels: int, penalty: float) -> Probe:
    """Fit a probe to ``vectors`` (N, D) float64 and ``targets`` (N,) int64.

    Minimizes the mean cross-entropy + ``penalty`` / 2 times the squared weights without bias: scikit-learn's
    LogisticRegression with C = 1 / (N penalty). Starts at zero, so the result is deterministic.
    """
    weights = torch.zeros(labels, vectors.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(labels, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=_GRADIENT,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(vectors @ weights.T + bias, targets) + penalty / 2 * weights.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return Probe(weights.detach(), bias.detach())
