"""A run beside an earlier run of its preset: does it learn as much from as many tokens?

``configs/reference/*.json`` hold the curves of such runs and their settings, written by
``xlmtrain report run=... reference=...``. Training compares with these files; only a report composes presets.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from xlmtrain.config.data import DataConfig
from xlmtrain.config.load import CONFIG_DIR, compose
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.schema import config_as_json, flatten
from xlmtrain.data.format import Header
from xlmtrain.diagnostics.finding import Finding, error
from xlmtrain.diagnostics.rules import SIGNIFICANT, Record, Settings, smoothed_curve
from xlmtrain.errors import ConfigError, damage_as
from xlmtrain.runtime.typed_json import typed

log = logging.getLogger(__name__)

PRESETS, REFERENCES = CONFIG_DIR / "experiment", CONFIG_DIR / "reference"
# Three seeds of a preset were up to 0.5 nats apart at equal tokens, and needed up to 1.7 times as many for the same.
_TIMES_TOKENS = 2.0
# Settings that change how much is learned from a token; those of mask also change the task.
_MATTER = ("init.", "model.", "data.", "mask.", "optim.", "train.batch_tokens", "phases")
_TASK = "mask."
# Where a run is and what it reads is not a preset's choice.
_PLACES = ("run", "data.path", "seed")
# The presets for a CPU differ from each other in 7 of these settings, from those for GPUs in 13 or more.
_MAX_DIFFERENCES = 12

Difference = tuple[str, Any, Any]
"""(key path, one value, the other); None for a setting that is not there."""


@dataclass(frozen=True)
class ReferenceCurve:
    """A run of ``preset``: metric -> ``curves``, points (tokens, value) in the order of their tokens.

    ``command``: that ran it. ``text``: its training text, in words; ``trained_on``, ``judged_on``: fingerprints of
    training and validation text. ``settings``: by key path, those that change how much is learned from a token.
    """

    preset: str
    command: str
    text: str
    trained_on: str
    judged_on: str
    settings: Mapping[str, Any]
    curves: Mapping[str, list[list[float]]]

    @classmethod
    def from_json(cls, text: str) -> ReferenceCurve:
        """Read a file's ``text``; raises ConfigError. Files of 0.1.0 have no settings; settings of model and data that
        are newer than a file have their defaults."""
        with damage_as(ConfigError, "no reference as xlmtrain report makes them"):
            found = typed(cls, {"settings": {}, **json.loads(text)})
        if not found.settings:
            return found
        defaults = flatten({"model": config_as_json(ModelConfig()), "data": config_as_json(DataConfig())})
        return replace(found, settings={**settings_that_matter(defaults), **found.settings})

    def as_json(self) -> str:
        """Return the text of a file in ``configs/reference``, with one curve per line."""
        head = json.dumps({**asdict(self), "settings": "...", "curves": None}, indent=1, ensure_ascii=False)
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(points)}" for name, points in self.curves.items())
        head = head.replace('"..."', json.dumps(self.settings, ensure_ascii=False))
        return head.replace('"curves": null', f'"curves": {{\n{lines}\n }}') + "\n"


def is_reference(text: str) -> bool:
    """Return whether a file's ``text`` is that of a :class:`ReferenceCurve`."""
    try:
        ReferenceCurve.from_json(text)
    except ConfigError:
        return False
    return True


def settings_that_matter(settings: Settings) -> dict[str, Any]:
    """Return those of flat ``settings`` that change how much is learned from a token."""
    return {key: value for key, value in settings.items() if key.startswith(_MATTER) and key != "data.path"}


def differences(first: Settings, second: Settings) -> list[Difference]:
    """Return (key, first's value, second's) where two flat settings differ."""
    keys = sorted(first.keys() | second.keys())
    return [(key, first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)]


def nearest_preset(settings: Settings) -> tuple[str, list[Difference]]:
    """Return the preset with the fewest differences from flat ``settings``, and (key, its value, the run's) of each.

    A preset that cannot be composed is left out. Without any, the name is empty, and there are no differences.
    """
    found = []
    for path in sorted(PRESETS.glob("*.yaml")):
        try:
            preset = _preset_settings(path.stem)
        except ConfigError as problem:
            log.warning("%s: %s", path, problem)
        else:
            found.append((path.stem, [d for d in differences(preset, settings) if d[0] not in _PLACES]))
    return min(found, key=lambda entry: len(entry[1]), default=("", []))


@cache
def _preset_settings(name: str) -> Mapping[str, Any]:
    """Return the flat settings of a preset. A report needs those of all presets, some of them twice, at 0.2 s each."""
    return flatten(compose("config", [f"experiment={name}"]))


def find_reference(settings: Settings, trained_on: str, judged_on: str) -> ReferenceCurve | None:
    """Return the reference of the most similar flat ``settings``, on the same training or validation text if possible.

    Fingerprints as in :class:`ReferenceCurve`. None if the settings of all references differ much. Raises ConfigError
    for a file that is not a reference.
    """
    ours = settings_that_matter(settings)
    found: list[tuple[tuple[int, bool, bool], ReferenceCurve]] = []
    for path in sorted(REFERENCES.glob("*.json")):
        try:
            known = ReferenceCurve.from_json(path.read_text(encoding="utf-8-sig"))
        except ConfigError as problem:
            raise ConfigError(f"{path}: {problem}") from None
        changed = len(differences(known.settings, ours))
        if changed <= _MAX_DIFFERENCES:
            found.append(((changed, known.trained_on != trained_on, known.judged_on != judged_on), known))
    return min(found, key=lambda entry: entry[0])[1] if found else None


def compare_to_baseline(
    records: Sequence[Record], reference: ReferenceCurve, settings: Settings, header: Header, causes: Sequence[str] = ()
) -> Iterator[Finding]:
    """Find a run that is far behind the ``reference`` of its preset, where the two can be compared.

    ``records``: of ``metrics.jsonl``. ``settings``: of the run, by key path. ``header``: of its data. ``causes``: known
    without the reference. Losses are compared on the same text only: another text may be two or three times as easy.
    """
    changed = differences(reference.settings, settings_that_matter(settings))
    if any(key.startswith(_TASK) for key, _, _ in changed):
        return
    same_text = {
        "train": reference.trained_on == header.fingerprint_of("train"),
        "valid": reference.judged_on == header.fingerprint_of("valid"),
    }
    likely = list(causes)
    if not same_text["train"]:
        likely.append(f"the training text is not what the preset's run had ({reference.text})")
    for key, old, new in changed:
        if new is not None and not any(key in cause for cause in causes):  # None: in a run of an earlier version
            likely.append(f"{key}={new} (the preset: {old})")
    for name, points in _losses(records).items():
        split, _, metric = name.partition("/")
        if name not in reference.curves or not same_text[split]:
            continue
        valid = split == "valid"
        tokens, loss = points[-1]
        xs, ys = zip(*((x, math.log(y) if valid else y) for x, y in reference.curves[name]))
        expected = float(np.interp(tokens, xs, ys))
        needed = _first_at(xs, ys, loss)
        if loss > expected + SIGNIFICANT and tokens > _TIMES_TOKENS * needed:
            kind = f"{metric[:3].upper()} {'validation' if valid else 'training'} loss"
            already = f", and {loss:.2f} after {needed:,.0f}" if needed > xs[0] else ""
            yield error(
                f"Far behind the preset {reference.preset}: the {kind} is {loss:.2f} after {tokens:,.0f} tokens, where "
                f"the preset's own run had {expected:.2f}{already}.",
                *likely or ["no setting that matters differs: bad luck (try another seed), or a change of the program"],
            )
            return


def _first_at(xs: Sequence[float], ys: Sequence[float], level: float) -> float:
    """Return the first x where the line through the points is at ``level`` or below; infinity if it never is."""
    place = next((i for i, y in enumerate(ys) if y <= level), None)
    if place is None:
        return math.inf
    return float(np.interp(-level, [-ys[place - 1], -ys[place]], xs[place - 1 : place + 1])) if place else xs[0]


def _losses(records: Sequence[Record]) -> dict[str, list[tuple[float, float]]]:
    """Return metric -> points (tokens, loss in nats); validation first, which is less noisy."""
    valid: dict[str, list[tuple[float, float]]] = {}
    train: dict[str, list[tuple[float, float]]] = {}
    tokens = 0.0
    for record in records:
        tokens = record.get("progress/tokens", tokens)
        for objective in ("mlm", "tlm", "clm"):
            if (name := f"valid/{objective}_ppl") in record and tokens:
                valid.setdefault(name, []).append((tokens, math.log(record[name])))
            if (name := f"train/{objective}_loss") in record:
                train.setdefault(name, []).append((tokens, record[name]))
    return valid | {name: smoothed_curve(curve) for name, curve in train.items() if len(curve) > 1}
