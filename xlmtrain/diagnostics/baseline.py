"""A run beside an earlier one of its preset: whether it learns as much from as many tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xlmtrain.data.format import Header
from xlmtrain.diagnostics.presets import Reference
from xlmtrain.diagnostics.rules import CLEARLY, Finding, smoothed_curve

# Three seeds of a preset were up to 0.5 nats apart at equal tokens, and needed up to 1.7 times as many for the same.
_LATER = 2.0
# Settings that change how much is learned from a token; those of mask also change what is asked.
_MATTER = ("init.", "model.", "data.", "optim.", "train.batch_tokens")
_ASKED = "mask."


def compare_to_baseline(
    records: Sequence[Mapping[str, Any]],
    past: Reference,
    changed: Sequence[tuple[str, Any, Any]],
    text: Header,
    known: Sequence[str] = (),
) -> Iterator[Finding]:
    """A run that is far behind the reference ``past`` of its preset; nothing where the two do not compare.

    ``records``: of ``metrics.jsonl``. ``changed``: (setting, the preset's value, the run's). ``text``: the run's.
    ``known``: likely causes that are known without the preset. Losses compare on the same text only: another is learned
    two or three times as fast or as slowly.
    """
    if any(key.startswith(_ASKED) for key, _, _ in changed):
        return
    for name, points in _losses(records).items():
        split, before = ("valid", past.judged_on) if _is_valid(name) else ("train", past.trained_on)
        if name not in past.curves or before != text.fingerprint_of(split):
            continue
        tokens, loss = points[-1]
        xs, ys = zip(*((x, math.log(y) if _is_valid(name) else y) for x, y in past.curves[name]))
        expected = float(np.interp(tokens, xs, ys))
        reached = _reached(xs, ys, loss)
        if loss > expected + CLEARLY and tokens > _LATER * reached:
            kind = f"{name.partition('/')[2][:3].upper()} {'validation' if _is_valid(name) else 'training'} loss"
            already = f", and {loss:.2f} after {reached:,.0f}" if reached > xs[0] else ""
            yield Finding(
                f"Far behind the preset {past.preset}: the {kind} is {loss:.2f} after {tokens:,.0f} tokens, where the "
                f"preset's own run had {expected:.2f}{already}.",
                [*known, *_differing(changed, known, past, text)]
                or ["no setting that matters differs: bad luck (try another seed), or a change of the program"],
            )
            return


def _reached(xs: Sequence[float], ys: Sequence[float], level: float) -> float:
    """Where the line through the points first is at ``level`` or below it."""
    place = next((i for i, y in enumerate(ys) if y <= level), None)
    if place is None:
        return math.inf
    return float(np.interp(-level, [-ys[place - 1], -ys[place]], xs[place - 1 : place + 1])) if place else xs[0]


def _differing(
    changed: Sequence[tuple[str, Any, Any]], known: Sequence[str], past: Reference, text: Header
) -> Iterator[str]:
    """Beyond what is ``known`` to be a cause already."""
    if past.trained_on != text.fingerprint_of("train"):
        yield f"the training text is not what the preset's run had ({past.text})"
    for key, old, new in changed:
        absent = new is None  # in a run of an earlier version
        if key.startswith(_MATTER) and not absent and not any(key in cause for cause in known):
            yield f"{key}={new} (the preset: {old})"


def _losses(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Figure -> (tokens, loss in nats), of what begins to be learned: validation first, it is the less noisy."""
    found: dict[str, list[tuple[float, float]]] = {}
    tokens = 0.0
    training: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        tokens = record.get("progress/tokens", tokens)
        for objective in ("mlm", "tlm", "clm"):
            if f"valid/{objective}_ppl" in record and tokens:
                found.setdefault(f"valid/{objective}_ppl", []).append(
                    (tokens, math.log(record[f"valid/{objective}_ppl"]))
                )
            if f"train/{objective}_loss" in record:
                training.setdefault(f"train/{objective}_loss", []).append((tokens, record[f"train/{objective}_loss"]))
    return found | {name: smoothed_curve(curve) for name, curve in training.items() if len(curve) > 1}


def _is_valid(name: str) -> bool:
    return name.startswith("valid/")
