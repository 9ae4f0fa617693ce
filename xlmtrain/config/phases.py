"""Phases of a run: the settings of a step are a function of the run's settings and the step alone.

A run without phases is a run of one phase that changes nothing.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from xlmtrain.config.data import LENGTHS, OBJECTIVES, DataConfig
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.typed_json import typed

if TYPE_CHECKING:
    from xlmtrain.config.schema import Config

_NEW_SCHEDULE = {"schedule", "warmup_steps", "warmup_init_lr", "decay_steps"}


class Span(NamedTuple):
    """The steps from ``start`` to before ``end``."""

    start: int
    end: int

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.end - self.start


@dataclass(frozen=True)
class Phase:
    """The steps of a phase and its complete settings. ``name`` is empty in a run without phases.

    ``number``: from 0. ``schedule``: the steps of its learning-rate schedule, which may have begun in a phase before.
    ``loss_weight_start``: step 0 of the functions in ``data.loss_weight``. ``changes``: key path -> new value.
    """

    number: int
    name: str
    span: Span
    settings: Config
    schedule: Span
    loss_weight_start: int
    changes: Mapping[str, Any]

    @property
    def prefix(self) -> str:
        """Beginning of the key paths of its settings, for messages."""
        return f"phases[{self.number}]." if self.name else ""

    def loss_factor(self, objective: str, step: int) -> float:
        """Return the factor of the loss of ``objective`` at ``step`` of the run."""
        return self.settings.data.loss_factor(objective, step - self.loss_weight_start)

    def translation_step(self, step: int) -> int:
        """Return the step of the phase that makes the translations with which back-translation trains at ``step``."""
        steps = self.settings.bt.steps_per_translation if "bt" in self.settings.data.weights else 1
        return step - (step - self.span.start) % steps


def given(phase: Mapping[str, Any]) -> dict[str, Any]:
    """Return name, length and changes of a phase, as plain JSON values, without those that are None."""
    found = {
        key: {name: v for name, v in value.items() if v is not None} if isinstance(value, Mapping) else value
        for key, value in phase.items()
    }
    return {key: value for key, value in found.items() if value not in (None, {})}


def expand(settings: Mapping[str, Any]) -> Iterator[tuple[Span, dict[str, Any]]]:
    """Yield the steps and the complete settings of each phase, from those of a run as plain JSON values."""
    start, now = 0, {**settings, "phases": []}
    for number, phase in enumerate(map(given, settings.get("phases") or [{}])):
        changes = {section: values for section, values in phase.items() if isinstance(values, Mapping)}
        if number and _begins_schedule(phase):
            changes["optim"] = {"warmup_steps": 0, "decay_steps": 0, **changes["optim"]}
        now |= {section: {**now[section], **values} for section, values in changes.items()}
        batch_tokens, steps = now["train"]["batch_tokens"], phase.get("steps", settings["train"]["steps"])
        span = Span(start, start + (-(-phase["tokens"] // batch_tokens) if "tokens" in phase else steps))
        yield span, {**now, "train": {**now["train"], "steps": span.steps}}
        start = span.end


def _begins_schedule(phase: Mapping[str, Any]) -> bool:
    return not _NEW_SCHEDULE.isdisjoint(phase.get("optim", {}))


def phases_of(config: Config) -> list[Phase]:
    """Return the phases of a run; at least one. Raises ConfigError if the settings of one are wrong."""
    if not config.phases:
        span = Span(0, config.train.steps)
        return [Phase(0, "", span, config, span, 0, {})]
    plain = json.loads(json.dumps(asdict(config)))
    spans, found = [span for span, _ in expand(plain)], []
    changes = list(map(given, plain["phases"]))
    begins = [number for number, phase in enumerate(changes) if number == 0 or _begins_schedule(phase)]
    weighted = [number for number, phase in enumerate(changes) if "loss_weight" in phase.get("data", {})]
    for number, (span, settings) in enumerate(expand(plain)):
        try:
            complete = typed(type(config), settings)
        except ConfigError as error:
            raise ConfigError(str(error).replace("\n  ", f"\n  phases[{number}].")) from None
        place = bisect_right(begins, number)
        end = spans[begins[place]].start if place < len(begins) else spans[-1].end
        schedule = Span(spans[begins[place - 1]].start, end)
        loss_weight_start = max((spans[phase].start for phase in weighted if phase <= number), default=0)
        changed = {
            f"{section}.{key}": value
            for section, values in changes[number].items()
            if isinstance(values, Mapping)
            for key, value in values.items()
        }
        found.append(Phase(number, changes[number]["name"], span, complete, schedule, loss_weight_start, changed))
    return found


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """Return the phase of ``step``, from 0; of steps after the end the last."""
    return phases[min(bisect_right(phases, step, key=lambda phase: phase.span.end), len(phases) - 1)]


def total_tokens(phases: Sequence[Phase]) -> int:
    """Return the tokens that a run of these phases trains on, padding included."""
    return sum(phase.span.steps * phase.settings.train.batch_tokens for phase in phases)


def combined_data(config: Config) -> DataConfig:
    """Return ``data`` with the largest lengths and weights of all phases: everything that the run trains on."""
    every = [phase.settings.data for phase in phases_of(config)]
    return replace(
        every[0], **{name: _largest([getattr(data, name) for data in every]) for name in (*OBJECTIVES, *LENGTHS)}
    )


def _largest(values: Sequence[Any]) -> Any:
    if not isinstance(values[0], Mapping):
        return max(values)
    keys = {key: None for value in values for key in value}
    return {key: max(value.get(key, 0.0) for value in values) for key in keys}
