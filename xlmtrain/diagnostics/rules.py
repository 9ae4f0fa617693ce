"""Rules: each finds one problem in a run's settings, or in its ``metrics.jsonl`` with likely causes from the settings.

``settings`` are flat: by key path. Rules for settings find what is valid but unlikely to train well.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from xlmtrain.diagnostics.finding import Finding, error, warning

SIGNIFICANT = 0.5  # nats between two losses that are more than noise
_PARTS = 10  # points of a smoothed curve
_FEWEST = 12  # records that a rule needs
_FLAT = 0.02  # share by which the loss of a run that learns falls in its second half
_LEARNED = 0.85  # of the unigram entropy: a loss below it shows that the model uses the context
_DUPLICATES = 0.3  # share of repeated lines from which on the model can learn lines by heart
# optim.lr x model.dim of runs that learned: 0.1 to 0.5 over widths of 128 to 1024.
_LOW, _HIGH = 0.02, 1.0
_LEAST_WARMUP = 50
_EARLY_TOKENS = 30_000_000

Record = Mapping[str, Any]
Settings = Mapping[str, Any]


def config_warnings(settings: Settings, tokens: float) -> Iterator[Finding]:
    """Yield what is likely to harm a run of ``tokens`` tokens (errors), or could be better (warnings)."""
    yield from _no_warmup(settings)
    yield from _high_rate(settings)
    yield from _low_rate(settings)
    yield from warmup_too_long(settings.get("optim.warmup_steps", 0), settings.get("train.steps", sys.maxsize))
    yield from _no_clipping(settings)
    yield from _long_sequences(settings, tokens)
    yield from _narrow_heads(settings)


def _no_warmup(settings: Settings) -> Iterator[Finding]:
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


def _high_rate(settings: Settings) -> Iterator[Finding]:
    rate, dim = settings.get("optim.lr", 0.0), settings.get("model.dim", 1024)
    if rate * dim > _HIGH:
        yield error(f"optim.lr={rate:g} is high for a width of {dim}; {_known_rates(dim)}")


def _low_rate(settings: Settings) -> Iterator[Finding]:
    rate, dim = settings.get("optim.lr", 0.0), settings.get("model.dim", 1024)
    if rate * dim < _LOW:
        yield error(f"optim.lr={rate:g} is low for a width of {dim}; {_known_rates(dim)}")


def _known_rates(dim: int) -> str:
    return f"{0.1 / dim:.0e} to {0.5 / dim:.0e} are known to learn"


def _no_clipping(settings: Settings) -> Iterator[Finding]:
    if not settings.get("optim.clip_grad_norm", 0.0):
        yield warning(
            "gradients are not clipped (optim.clip_grad_norm=0): a single batch can throw the weights off; 5 is usual"
        )


def _long_sequences(settings: Settings, tokens: float) -> Iterator[Finding]:
    length = settings.get("data.sequence_length", 0)
    if length > 64 and tokens < _EARLY_TOKENS:
        yield warning(
            f"long sequences for so little text: each of {length} positions is learned by itself, and {tokens:,.0f} "
            "tokens are early; data.sequence_length=32 leaves the plateau several times sooner"
        )


def _narrow_heads(settings: Settings) -> Iterator[Finding]:
    dim, heads = settings.get("model.dim", 0), settings.get("model.heads", 1)
    if 0 < dim // heads < 64 <= dim:
        yield warning(f"heads of {dim // heads} (model.dim / model.heads): heads of 64 leave the plateau sooner")


def duplicate_lines(rate: float | None, corpus: str = "") -> Iterator[Finding]:
    """Find a text in which the share ``rate`` of the lines, if known, repeats earlier ones."""
    if rate is not None and rate > _DUPLICATES:
        prefix = f"{corpus}: " if corpus else ""
        yield error(
            f"{prefix}{rate:.0%} of the training lines occurred before: leave out duplicates when preparing the text"
        )


def messages(*rules: Iterable[Finding]) -> list[str]:
    """Return the texts of findings, for use as the causes of another."""
    return [finding.what for finding in chain(*rules)]


def unigram_entropy(counts: np.ndarray, inverse_frequency_exponent: float = 0.0) -> float:
    """Return the loss in nats of a model that knows only the frequency of each token; ``counts`` (V,).

    ``inverse_frequency_exponent``: of the masking, which samples a token with weight count^-exponent, so that its share
    of the targets is in proportion to count^(1 - exponent).
    """
    weights = counts[counts > 0] ** (1.0 - inverse_frequency_exponent)
    shares = weights / weights.sum()
    return float(-(shares * np.log(shares)).sum())


def diagnose(
    records: Sequence[Record], settings: Settings, entropy: float, duplicates: float | None = None
) -> list[Finding]:
    """Return divergence, plateau, overfitting, missing transfer and inefficiency, as far as ``records`` show them.

    ``entropy``: of the targets, :func:`unigram_entropy`. ``duplicates``: share of repeated training lines, if known.
    """
    findings: list[Finding] = []
    steps = [record for record in records if "train/loss" in record]
    for objective in ("mlm", "tlm", "clm"):
        curve = [(r["step"], r[f"train/{objective}_loss"]) for r in steps if f"train/{objective}_loss" in r]
        if len(curve) >= _FEWEST:
            tokens = steps[-1]["progress/tokens"]
            findings += _divergence(objective.upper(), curve, settings)
            findings += _plateau(objective.upper(), curve, settings, entropy, duplicates, tokens)
    findings += _overfitting(records)
    findings += _no_transfer(records, settings, entropy)
    findings += _inefficiency(steps, settings)
    return findings


def smoothed_curve(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return (last x, mean y) of each tenth of the points (x, y)."""
    size = max(len(curve) // _PARTS, 2)
    parts = [curve[i : i + size] for i in range(0, len(curve) - size + 1, size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _divergence(objective: str, curve: Sequence[tuple[int, float]], settings: Settings) -> Iterator[Finding]:
    parts = smoothed_curve(curve)
    step, best = min(parts, key=lambda point: point[1])
    last = parts[-1][1]
    if last > best + SIGNIFICANT:
        causes = messages(_high_rate(settings), _no_clipping(settings), _no_warmup(settings))
        yield error(
            f"Training has diverged: the {objective} loss was {best:.2f} at step {step:,}, now {last:.2f}.",
            *causes
            or [f"a rate that is too high for this data: try optim.lr={settings.get('optim.lr', 1e-4) / 3:.1e}"],
        )


def _plateau(
    objective: str,
    curve: Sequence[tuple[int, float]],
    settings: Settings,
    entropy: float,
    duplicates: float | None,
    tokens: float,
) -> Iterator[Finding]:
    """Find a loss that stays at the unigram entropy after the warm-up and does not diverge."""
    parts, step = smoothed_curve(curve), curve[-1][0]
    half, last = parts[len(parts) // 2][1], parts[-1][1]
    flat = half * (1 - _FLAT) < last <= half + SIGNIFICANT
    if flat and last > _LEARNED * entropy and step > settings.get("optim.warmup_steps", 0):
        causes = messages(
            _no_warmup(settings),
            _high_rate(settings),
            _low_rate(settings),
            duplicate_lines(duplicates),
            _long_sequences(settings, tokens),
            _narrow_heads(settings),
        )
        yield error(
            f"The {objective} loss is stuck near {last:.1f}, about the entropy of the token frequencies "
            f"({entropy:.1f}): the model does not use the context yet.",
            *causes or [f"too short a training so far: {step:,} steps, {tokens:,.0f} tokens"],
        )


def _overfitting(records: Sequence[Record]) -> Iterator[Finding]:
    """Find, per validation set, a perplexity that rose much while the training loss went on falling."""
    evaluations = [record for record in records if any(key.startswith("valid/") for key in record)]
    losses = [(record["step"], record["train/loss"]) for record in records if "train/loss" in record]
    last = evaluations[-1] if evaluations else {}
    for name in (key for key in last if key.endswith(("/mlm_ppl", "/tlm_ppl", "/clm_ppl"))):
        curve = [(record["step"], record[name]) for record in evaluations if name in record]
        step, best = min(curve, key=lambda point: point[1])
        before = [loss for at, loss in losses if at <= step]
        if before and curve[-1][1] > 1.2 * best and losses[-1][1] < before[-1]:
            yield warning(
                f"Overfitting: {name} was {best:.1f} at step {step:,} and is {curve[-1][1]:.1f} now, while the "
                "training loss went on falling.",
                "too little text for so many passes: more text, fewer steps, or dropout (model.dropout=0.1)",
            )


def _no_transfer(records: Sequence[Record], settings: Settings, entropy: float) -> Iterator[Finding]:
    """Find a model that uses the context, but whose cloze accuracy does not profit from the translation."""
    last: Record = next((record for record in reversed(records) if "valid/cloze_parallel_acc" in record), {})
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    if not last or not losses or losses[-1] > _LEARNED * entropy:
        return
    parallel, mono = last["valid/cloze_parallel_acc"], last["valid/cloze_mono_acc"]
    if parallel <= mono + 1:
        pairs = any(weight for key, weight in settings.items() if key.startswith("data.tlm."))
        yield warning(
            f"There is no cross-lingual transfer yet: masked-word accuracy is {parallel:.1f} % with the translation in "
            f"view, {mono:.1f} % without.",
            f"too short a training so far: {last['step']:,} steps"
            if pairs
            else "no pairs are trained on: data.tlm={de-en: 1}, or the pair of your languages",
        )


def _inefficiency(steps: Sequence[Record], settings: Settings) -> Iterator[Finding]:
    """Find steps that are mostly clipped, wait for data, or are skipped."""
    clip, warmup = settings.get("optim.clip_grad_norm", 0.0), settings.get("optim.warmup_steps", 0)
    if len(steps) < _FEWEST:
        return
    later = [record for record in steps if record["step"] > warmup] or list(steps)

    def share(holds: Callable[[Record], bool]) -> float:
        return sum(map(holds, later)) / len(later)

    if clip and share(lambda record: record.get("train/grad_norm", math.inf) > clip) > 0.9:
        yield warning(
            f"The gradient is clipped at nearly every step (optim.clip_grad_norm={clip:g}).",
            "the rate is too high, or the clipping tighter than meant: it acts as another, varying learning rate",
        )
    if share(lambda record: record.get("speed/data_wait_share", 0.0) > 0.1) > 0.5:
        yield warning(
            "More than a tenth of the time is spent waiting for data.",
            "slow storage, or a processor that other programs use too",
        )
    skipped = steps[-1].get("train/skipped_steps", 0)
    if skipped > 0.01 * steps[-1]["step"]:
        yield warning(
            f"fp16 skipped {skipped:,} of {steps[-1]['step']:,} steps.",
            "the loss scale does not stabilize: take train.precision=bf16 where there is bf16, or a lower optim.lr",
        )
