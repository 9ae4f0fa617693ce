"""What is wrong with a training run, as far as its figures tell, with the likely causes from its settings."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CLEARLY = 0.5  # nats between two losses when more than noise is the reason
_PART = 10  # a level of the loss is its mean over a tenth of the records
_FEWEST = 12  # records without which nothing can be said
_FLAT = 0.02  # share by which a loss has to fall in the run's second half to be moving
# optim.lr x model.dim of runs that learned: 0.1 to 0.5 over widths of 128 to 1024.
_LOW, _HIGH = 0.02, 1.0
_EARLY_TOKENS = 30_000_000
# Text is repeated above this share: the model can learn lines by heart instead of the language.
_REPEATED = 0.3


@dataclass(frozen=True)
class Finding:
    """``what`` is noticed, and its likely ``causes``, likeliest first. ``grave``: not worth going on with."""

    what: str
    causes: list[str] = field(default_factory=list)
    grave: bool = True


def unigram_entropy(counts: np.ndarray, inverse_frequency_exponent: float = 0.0) -> float:
    """The loss in nats of a model that knows how frequent each token is and nothing else; ``counts`` (V,).

    ``inverse_frequency_exponent``: of the masking, which hides a token with weight count^-alpha, so that of those to predict its
    share is in proportion to count^(1 - alpha).
    """
    hidden = counts[counts > 0] ** (1.0 - inverse_frequency_exponent)
    shares = hidden / hidden.sum()
    return float(-(shares * np.log(shares)).sum())


def diagnose(
    records: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    entropy: float,
    repeated: float | None = None,
) -> list[Finding]:
    """Divergence, plateau, overfitting, languages apart, waste in a run's ``metrics.jsonl``; nothing if it looks well.

    ``settings``: by key path. ``entropy``: of the tokens to predict, :func:`unigram_entropy`. ``repeated``: share of
    its lines that occurred before, if known.
    """
    findings: list[Finding] = []
    steps = [record for record in records if "train/loss" in record]
    for objective in ("mlm", "tlm", "clm"):
        curve = [(r["step"], r[f"train/{objective}_loss"]) for r in steps if f"train/{objective}_loss" in r]
        if len(curve) >= _FEWEST:
            findings += _diverged(objective, curve, settings)
            findings += _on_plateau(objective, curve, settings, entropy, repeated, steps[-1]["progress/tokens"])
    findings += _overfitting(records)
    findings += _apart(records, settings, entropy)
    findings += _waste(steps, settings)
    return findings


def config_warnings(settings: Mapping[str, Any], tokens: float) -> list[Finding]:
    """What is unlikely to go well, or could go better, in a run of so many ``tokens``; ``settings``: by key path."""
    grave = [*_no_warmup(settings), *_rate_is_high(settings), *_rate_is_low(settings)]
    grave += warmup_too_long(settings.get("optim.warmup_steps", 0), settings.get("train.steps", sys.maxsize))
    light = [*_clipping_is_off(settings), *_long_sequences(settings, tokens), *_narrow_heads(settings)]
    return [*(Finding(what) for what in grave), *(Finding(what, grave=False) for what in light)]


def smoothed_curve(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """``curve``: (step, loss) of the records. (Last step, mean loss) of a tenth of them each, from first to last."""
    size = max(len(curve) // _PART, 2)
    parts = [curve[i : i + size] for i in range(0, len(curve) - size + 1, size)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in parts]


def _diverged(objective: str, curve: Sequence[tuple[int, float]], settings: Mapping[str, Any]) -> Iterator[Finding]:
    parts = smoothed_curve(curve)
    step, best = min(parts, key=lambda level: level[1])
    last = parts[-1][1]
    if last > best + CLEARLY:
        yield Finding(
            f"Training has diverged: the {objective.upper()} loss was {best:.2f} at step {step:,}, now {last:.2f}.",
            [*_rate_is_high(settings), *_clipping_is_off(settings), *_no_warmup(settings)]
            or [f"a rate that is too high for this data: try optim.lr={settings.get('optim.lr', 1e-4) / 3:.1e}"],
        )


def _on_plateau(
    objective: str,
    curve: Sequence[tuple[int, float]],
    settings: Mapping[str, Any],
    entropy: float,
    repeated: float | None,
    tokens: float,
) -> Iterator[Finding]:
    parts = smoothed_curve(curve)
    half, last = parts[len(parts) // 2][1], parts[-1][1]
    learned_little = last > 0.85 * entropy
    if not learned_little or curve[-1][0] <= settings.get("optim.warmup_steps", 0) or last > half + CLEARLY:
        return
    if last > half * (1 - _FLAT):
        causes = [
            *_no_warmup(settings),
            *_rate_is_high(settings),
            *_rate_is_low(settings),
            *repeated_lines(repeated),
            *_long_sequences(settings, tokens),
            *_narrow_heads(settings),
        ]
        yield Finding(
            f"The {objective.upper()} loss is stuck near {last:.1f}, which is about what knowing the frequency of each "
            f"token gives ({entropy:.1f}): the model does not use the words around a gap yet.",
            causes or [f"too short a training so far: {curve[-1][0]:,} steps, {tokens:,.0f} tokens"],
        )


def _no_warmup(settings: Mapping[str, Any]) -> Iterator[str]:
    warmup = settings.get("optim.warmup_steps", 0)
    if warmup < 50:
        yield (
            f"no warm-up to speak of (optim.warmup_steps={warmup}): full-rate steps on random weights push the model "
            "onto the plateau; a few hundred to 4,000 steps are usual"
        )


def warmup_too_long(warmup: int, steps: int) -> Iterator[str]:
    """Of a run of so many ``steps``."""
    if warmup >= steps:
        yield (
            f"optim.warmup_steps={warmup}: the warm-up is not over when the run is, after {steps:,} steps, so that the "
            f"rate never comes to optim.lr; optim.warmup_steps={max(steps // 10, 1)} is usual"
        )


def _rate_is_high(settings: Mapping[str, Any]) -> Iterator[str]:
    rate, dim = settings.get("optim.lr", 0.0), settings.get("model.dim", 1024)
    if rate * dim > _HIGH:
        yield f"optim.lr={rate:g} is high for a width of {dim}; {0.1 / dim:.0e} to {0.5 / dim:.0e} are known to learn"


def _rate_is_low(settings: Mapping[str, Any]) -> Iterator[str]:
    rate, dim = settings.get("optim.lr", 0.0), settings.get("model.dim", 1024)
    if rate * dim < _LOW:
        yield f"optim.lr={rate:g} is low for a width of {dim}; {0.1 / dim:.0e} to {0.5 / dim:.0e} are known to learn"


def _clipping_is_off(settings: Mapping[str, Any]) -> Iterator[str]:
    if not settings.get("optim.clip_grad_norm", 0.0):
        yield "gradients are not clipped (optim.clip_grad_norm=0): a single batch can throw the weights off; 5 is usual"


def repeated_lines(repeated: float | None) -> Iterator[str]:
    """Of a text of whose lines the share ``repeated``, if that is known, occurred before."""
    if repeated is not None and repeated > _REPEATED:
        yield f"{repeated:.0%} of the training lines occurred before: leave out duplicates when preparing the text"


def _long_sequences(settings: Mapping[str, Any], tokens: float) -> Iterator[str]:
    length = settings.get("data.sequence_length", 0)
    if length > 64 and tokens < _EARLY_TOKENS:
        yield (
            f"long sequences for so little text: each of {length} positions is learned by itself, and {tokens:,.0f} "
            "tokens are early; data.sequence_length=32 leaves the plateau several times sooner"
        )


def _narrow_heads(settings: Mapping[str, Any]) -> Iterator[str]:
    dim, heads = settings.get("model.dim", 0), settings.get("model.heads", 1)
    if 0 < dim // heads < 64 <= dim:
        yield f"heads of {dim // heads} (model.dim / model.heads): heads of 64 leave the plateau sooner"


def _overfitting(records: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Per set, where validation has become much worse while training went on getting better."""
    evaluations = [record for record in records if any(key.startswith("valid/") for key in record)]
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    names = [
        key for key in (evaluations[-1] if evaluations else {}) if key.endswith(("/mlm_ppl", "/tlm_ppl", "/clm_ppl"))
    ]
    for name in names:
        curve = [(record["step"], record[name]) for record in evaluations if name in record]
        step, best = min(curve, key=lambda point: point[1])
        before = [record["train/loss"] for record in records if "train/loss" in record and record["step"] <= step]
        if before and curve[-1][1] > 1.2 * best and losses[-1] < before[-1]:
            yield Finding(
                f"Overfitting: {name} was {best:.1f} at step {step:,} and is {curve[-1][1]:.1f} now, while the "
                "training loss went on falling.",
                ["too little text for so many passes: more text, fewer steps, or dropout (model.dropout=0.1)"],
                grave=False,
            )


def _apart(records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], entropy: float) -> Iterator[Finding]:
    """A model that has left the plateau, but finds hidden words no better for having their translation in view."""
    last: Mapping[str, Any] = next((record for record in reversed(records) if "valid/cloze_parallel_acc" in record), {})
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    if not last or not losses or losses[-1] > 0.85 * entropy:
        return
    aided, alone = last["valid/cloze_parallel_acc"], last["valid/cloze_mono_acc"]
    if aided <= alone + 1:
        pairs = any(weight for key, weight in settings.items() if key.startswith("data.tlm."))
        yield Finding(
            f"The languages have not met: {aided:.1f} % of the hidden words are found with the translation in view, "
            f"{alone:.1f} % without.",
            [f"too short a training so far: {last['step']:,} steps"]
            if pairs
            else ["no pairs are trained on: data.tlm={de-en: 1}, or the pair of your languages"],
            grave=False,
        )


def _waste(steps: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Iterator[Finding]:
    clip, warmup = settings.get("optim.clip_grad_norm", 0.0), settings.get("optim.warmup_steps", 0)
    if len(steps) < _FEWEST:
        return

    def share(holds: Callable[[Mapping[str, Any]], bool]) -> float:
        later = [record for record in steps if record["step"] > warmup] or list(steps)
        return sum(map(holds, later)) / len(later)

    if clip and share(lambda record: record.get("train/grad_norm", math.inf) > clip) > 0.9:
        yield Finding(
            f"The gradient is clipped at nearly every step (optim.clip_grad_norm={clip:g}).",
            ["the rate is too high, or the clipping tighter than meant: it acts as another, varying learning rate"],
            grave=False,
        )
    if share(lambda record: record.get("speed/data_wait_share", 0.0) > 0.1) > 0.5:
        yield Finding(
            "More than a tenth of the time is spent waiting for data.",
            ["slow storage, or a processor that other programs use too"],
            grave=False,
        )
    skipped = steps[-1].get("train/skipped_steps", 0)
    if skipped > 0.01 * steps[-1]["step"]:
        yield Finding(
            f"fp16 skipped {skipped:,} of {steps[-1]['step']:,} steps.",
            ["the loss scale does not settle: take train.precision=bf16 where there is bf16, or a lower optim.lr"],
            grave=False,
        )
