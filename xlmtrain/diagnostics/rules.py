"""Rules: each finds one problem in a run's settings, or in its ``metrics.jsonl`` with likely causes from the settings.

``settings`` are flat: by key path.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xlmtrain.config.data import SEQ2SEQ_OBJECTIVES
from xlmtrain.config.families import PARTS
from xlmtrain.diagnostics.finding import Finding, error, warning

SIGNIFICANT = 0.5  # nats between two losses that are more than noise
_PARTS = 10  # points of a smoothed curve
_MIN_RECORDS = 12  # records that a rule needs
_FLAT = 0.02  # share by which the loss of a run that learns falls in its second half
_LEARNED = 0.85  # of the unigram entropy: a loss below it shows that the model uses the context
_DUPLICATES = 0.3  # share of repeated lines from which on the model can learn lines by heart
# optim.lr x model.dim of runs that learned: 0.1 to 0.5 over widths of 128 to 1024.
_LOW, _HIGH = 0.02, 1.0
_LEAST_WARMUP = 50
_EARLY_TOKENS = 30_000_000
_ROTARY = {family.value for family, parts in PARTS.items() if parts.rotary}
# Problems of settings and text that can be the cause of a problem of the loss, likeliest first.
_CAUSES_OF_DIVERGENCE = ("high rate", "no clipping", "no warm-up")
_CAUSES_OF_PLATEAU = ("no warm-up", "high rate", "low rate", "duplicates", "long sequences", "narrow heads")

Record = Mapping[str, Any]
Settings = Mapping[str, Any]


def config_warnings(settings: Settings, tokens: float) -> dict[str, Finding]:
    """Return, by kind, what is valid but likely to harm a run of ``tokens`` tokens, or could be better (warnings)."""
    warmup, rate = settings.get("optim.warmup_steps", 0), settings.get("optim.lr", 0.0)
    dim, heads = settings.get("model.dim", 1024), settings.get("model.heads", 1)
    length = settings.get("data.sequence_length", 0)
    found = {}
    if warmup < _LEAST_WARMUP:
        why = "full-rate steps on random weights push the model onto the plateau; a few hundred to 4,000 are usual"
        found["no warm-up"] = error(f"no warm-up to speak of (optim.warmup_steps={warmup}): {why}")
    for kind, holds in (("high", rate * dim > _HIGH), ("low", rate * dim < _LOW)):
        if holds:
            known = f"{0.1 / dim:.0e} to {0.5 / dim:.0e} are known to learn"
            found[f"{kind} rate"] = error(f"optim.lr={rate:g} is {kind} for a width of {dim}; {known}")
    for finding in warmup_too_long(warmup, settings.get("train.steps", sys.maxsize)):
        found["long warm-up"] = finding
    if not settings.get("optim.clip_grad_norm", 0.0):
        why = "a single batch can throw the weights off; 5 is usual"
        found["no clipping"] = warning(f"gradients are not clipped (optim.clip_grad_norm=0): {why}")
    objectives = {name.split(".")[1] for name, value in settings.items() if name.startswith("data.") and value}
    sentences_alone = objectives & set(SEQ2SEQ_OBJECTIVES) and not objectives & {"mlm", "clm"}
    learned_positions = settings.get("model.family", "xlm") not in _ROTARY
    if length > 64 and tokens < _EARLY_TOKENS and learned_positions and not sentences_alone:
        why = f"each of {length} positions is learned by itself, and {tokens:,.0f} tokens are early"
        advice = "data.sequence_length=32 leaves the plateau several times sooner"
        found["long sequences"] = warning(f"long sequences for so little text: {why}; {advice}")
    if dim // heads < 64 <= dim:
        size = f"heads of {dim // heads} (model.dim / model.heads)"
        found["narrow heads"] = warning(f"{size}: heads of 64 leave the plateau sooner")
    return found


def warmup_too_long(warmup: int, steps: int) -> Iterator[Finding]:
    """Find a warm-up of at least the run's ``steps``."""
    if warmup >= steps:
        advice = f"optim.warmup_steps={steps // 10} is usual" if steps >= 10 else "train for more steps"
        what = f"optim.warmup_steps={warmup}: the warm-up does not end before the run, after {steps:,} steps"
        yield error(f"{what}; {advice}")


def duplicate_lines(rate: float | None, corpus: str = "") -> Iterator[Finding]:
    """Find a text in which the share ``rate`` of the lines, if known, repeats earlier ones."""
    if rate is not None and rate > _DUPLICATES:
        what = f"{rate:.0%} of the training lines occurred before: leave out duplicates when preparing the text"
        yield error(f"{corpus}: {what}" if corpus else what)


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
        if len(curve) >= _MIN_RECORDS:
            tokens = steps[-1]["progress/tokens"]
            causes = config_warnings(settings, tokens)
            for finding in duplicate_lines(duplicates):
                causes["duplicates"] = finding
            findings += _divergence(objective.upper(), curve, causes, settings.get("optim.lr", 1e-4))
            if curve[-1][0] > settings.get("optim.warmup_steps", 0):
                findings += _plateau(objective.upper(), curve, causes, entropy, tokens)
    findings += _overfitting(records, settings)
    findings += _no_transfer(records, settings, entropy)
    findings += _inefficiency(steps, settings)
    return findings


def smoothed_curve(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return (last x, mean y) of each tenth of the points (x, y)."""
    size = max(len(curve) // _PARTS, 2)
    parts = [curve[i : i + size] for i in range(0, len(curve) - size + 1, size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _divergence(
    objective: str, curve: Sequence[tuple[int, float]], causes: Mapping[str, Finding], rate: float
) -> Iterator[Finding]:
    parts = smoothed_curve(curve)
    step, best = min(parts, key=lambda point: point[1])
    last = parts[-1][1]
    if last > best + SIGNIFICANT:
        yield error(
            f"Training has diverged: the {objective} loss was {best:.2f} at step {step:,}, now {last:.2f}.",
            *[causes[kind].what for kind in _CAUSES_OF_DIVERGENCE if kind in causes]
            or [f"a rate that is too high for this data: try optim.lr={rate / 3:.1e}"],
        )


def _plateau(
    objective: str, curve: Sequence[tuple[int, float]], causes: Mapping[str, Finding], entropy: float, tokens: float
) -> Iterator[Finding]:
    """Find a loss that stays at the unigram entropy and does not diverge."""
    parts = smoothed_curve(curve)
    half, last = parts[len(parts) // 2][1], parts[-1][1]
    if half * (1 - _FLAT) < last <= half + SIGNIFICANT and last > _LEARNED * entropy:
        yield error(
            f"The {objective} loss is stuck near {last:.1f}, about the entropy of the token frequencies "
            f"({entropy:.1f}): the model does not use the context yet.",
            *[causes[kind].what for kind in _CAUSES_OF_PLATEAU if kind in causes]
            or [f"too short a training so far: {curve[-1][0]:,} steps, {tokens:,.0f} tokens"],
        )


def _overfitting(records: Sequence[Record], settings: Settings) -> Iterator[Finding]:
    """Find validation sets whose perplexity rose much while the training loss went on falling.

    Objectives that another phase trained are left out.
    """
    trained = {match[1] for key, weight in settings.items() if weight and (match := re.match(r"data\.(\w+)\.", key))}
    evaluations = [record for record in records if any(key.startswith("valid/") for key in record)]
    losses = [(record["step"], record["train/loss"]) for record in records if "train/loss" in record]
    last = evaluations[-1] if evaluations else {}
    for name in (key for key in last if re.fullmatch("valid/(.*_)?[mtc]lm_ppl", key)):
        curve = [(record["step"], record[name]) for record in evaluations if name in record]
        step, best = min(curve, key=lambda point: point[1])
        before = [loss for at, loss in losses if at <= step]
        if trained and name[-7:-4] not in trained:
            continue
        if before and curve[-1][1] > 1.2 * best and losses[-1][1] < before[-1]:
            rise = f"{name} was {best:.1f} at step {step:,} and is {curve[-1][1]:.1f} now"
            advice = "too little text for so many passes: more text, fewer steps, or dropout (model.dropout=0.1)"
            yield warning(f"Overfitting: {rise}, while the training loss went on falling.", advice)


def _no_transfer(records: Sequence[Record], settings: Settings, entropy: float) -> Iterator[Finding]:
    """Find a model that uses the context, but whose cloze accuracy does not profit from the translation."""
    last: Record = next((record for record in reversed(records) if "valid/cloze_parallel_acc" in record), {})
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    if not last or not losses or losses[-1] > _LEARNED * entropy:
        return
    parallel, mono = last["valid/cloze_parallel_acc"], last["valid/cloze_mono_acc"]
    if parallel <= mono + 1:
        if any(weight for key, weight in settings.items() if key.startswith("data.tlm.")):
            cause = f"too short a training so far: {last['step']:,} steps"
        else:
            cause = "no pairs are trained on: data.tlm={de-en: 1}, or the pair of your languages"
        accuracy = f"{parallel:.1f} % with the translation in view, {mono:.1f} % without"
        yield warning(f"There is no cross-lingual transfer yet: masked-word accuracy is {accuracy}.", cause)


def _inefficiency(steps: Sequence[Record], settings: Settings) -> Iterator[Finding]:
    """Find steps that are mostly clipped, wait for data, or are skipped."""
    clip, warmup = settings.get("optim.clip_grad_norm", 0.0), settings.get("optim.warmup_steps", 0)
    if len(steps) < _MIN_RECORDS:
        return
    later = [record for record in steps if record["step"] > warmup] or list(steps)

    def share(holds: Callable[[Record], bool]) -> float:
        return sum(map(holds, later)) / len(later)

    if clip and share(lambda record: record.get("train/grad_norm", math.inf) > clip) > 0.9:
        cause = "the rate is too high, or the clipping tighter than meant: it acts as another, varying learning rate"
        yield warning(f"The gradient is clipped at nearly every step (optim.clip_grad_norm={clip:g}).", cause)
    if share(lambda record: record.get("speed/data_wait_share", 0.0) > 0.1) > 0.5:
        cause = "slow storage, or a processor that other programs use too"
        yield warning("More than a tenth of the time is spent waiting for data.", cause)
    skipped, taken = steps[-1].get("train/skipped_steps", 0), steps[-1]["step"]
    if skipped > 0.01 * taken:
        if "train/loss_scale" in steps[-1]:
            cause = "the loss scale does not stabilize: train.precision=bf16 where there is bf16, or a lower optim.lr"
        else:
            cause = (
                "gradients that are not finite (train.on_non_finite), or loss spikes (train.on_spike): a lower optim.lr"
            )
        yield warning(f"{skipped:,} of {taken:,} steps were skipped.", cause)
