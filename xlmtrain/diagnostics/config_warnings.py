"""Rules for settings that are valid but unlikely to train well. ``settings`` are flat: by key path."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from xlmtrain.diagnostics.finding import Finding, error, warning

# optim.lr x model.dim of runs that learned: 0.1 to 0.5 over widths of 128 to 1024.
_LOW, _HIGH = 0.02, 1.0
_LEAST_WARMUP = 50
_EARLY_TOKENS = 30_000_000

Settings = Mapping[str, Any]


def config_warnings(settings: Settings, tokens: float) -> Iterator[Finding]:
    """Yield what is likely to harm a run of ``tokens`` tokens (errors), or could be better (warnings)."""
    yield from no_warmup(settings)
    yield from high_rate(settings)
    yield from low_rate(settings)
    yield from warmup_too_long(settings.get("optim.warmup_steps", 0), settings.get("train.steps", sys.maxsize))
    yield from no_clipping(settings)
    yield from long_sequences(settings, tokens)
    yield from narrow_heads(settings)


def no_warmup(settings: Settings) -> Iterator[Finding]:
    """Find a warm-up that is too short to matter."""
    warmup = settings.get("optim.warmup_steps", 0)
    if warmup < _LEAST_WARMUP:
        yield error(
            f"no warm-up to speak of (optim.warmup_steps={warmup}): full-rate steps on random weights push the model "
            "onto the plateau; a few hundred to 4,000 steps are usual"
        )


def warmup_too_long(warmup: int, steps: int) -> Iterator[Finding]:
    """Find a warm-up of at least the run's ``steps``."""
    if warmup >= steps:
        advice = f"optim.warmup_steps={steps // 10} is usual" if steps >= 10 else "train for more steps"
        yield error(
            f"optim.warmup_steps={warmup}: the warm-up does not end before the run, after {steps:,} steps, so the rate "
            f"never reaches optim.lr; {advice}"
        )


def high_rate(settings: Settings) -> Iterator[Finding]:
    """Find a learning rate above what is known to work at the model's width."""
    rate, dim = settings.get("optim.lr", 0.0), settings.get("model.dim", 1024)
    if rate * dim > _HIGH:
        yield error(f"optim.lr={rate:g} is high for a width of {dim}; {_known_rates(dim)}")


def low_rate(settings: Settings) -> Iterator[Finding]:
    """Find a learning rate below what is known to work at the model's width."""
    rate, dim = settings.get("optim.lr", 0.0), settings.get("model.dim", 1024)
    if rate * dim < _LOW:
        yield error(f"optim.lr={rate:g} is low for a width of {dim}; {_known_rates(dim)}")


def _known_rates(dim: int) -> str:
    return f"{0.1 / dim:.0e} to {0.5 / dim:.0e} are known to learn"


def no_clipping(settings: Settings) -> Iterator[Finding]:
    """Find gradients that are not clipped."""
    if not settings.get("optim.clip_grad_norm", 0.0):
        yield warning(
            "gradients are not clipped (optim.clip_grad_norm=0): a single batch can throw the weights off; 5 is usual"
        )


def long_sequences(settings: Settings, tokens: float) -> Iterator[Finding]:
    """Find long sequences in a run that is, after ``tokens`` tokens, at its beginning."""
    length = settings.get("data.sequence_length", 0)
    if length > 64 and tokens < _EARLY_TOKENS:
        yield warning(
            f"long sequences for so little text: each of {length} positions is learned by itself, and {tokens:,.0f} "
            "tokens are early; data.sequence_length=32 leaves the plateau several times sooner"
        )


def narrow_heads(settings: Settings) -> Iterator[Finding]:
    """Find attention heads narrower than 64, where the model is wide enough for 64."""
    dim, heads = settings.get("model.dim", 0), settings.get("model.heads", 1)
    if 0 < dim // heads < 64 <= dim:
        yield warning(f"heads of {dim // heads} (model.dim / model.heads): heads of 64 leave the plateau sooner")
