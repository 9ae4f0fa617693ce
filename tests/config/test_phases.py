"""Phases in the settings: what they resolve to, the learning rate, and mistakes that are named by their key path."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.tiny import phase, tiny_config
from xlmtrain.config.load import compose
from xlmtrain.config.phases import combined_data, phase_at, phases_of, total_tokens
from xlmtrain.config.schema import Config
from xlmtrain.errors import ConfigError
from xlmtrain.optim.schedule import phase_learning_rate

GIVEN = ["run=r", "data.path=d", "data.mlm={de: 1, en: 1}", "train.steps=50", "train.batch_tokens=8192"]


def composed(phases: str, *others: str) -> Config:
    return compose("config", [*GIVEN, f"phases={phases}", *others])


def test_a_phase_changes_the_settings_of_the_one_before() -> None:
    first = "{name: causal, steps: 10, data: {clm: {de: 1}, mlm: {}}, mask: {prob: 0.3}}"
    second = "{name: masked, tokens: 16385, data: {mlm: {de: 2}, clm: {}}, train: {batch_tokens: 16384}}"
    phases = phases_of(composed(f"[{first}, {second}, {{name: rest, mask: {{prob: 0.1}}}}]"))
    assert [one.name for one in phases] == ["causal", "masked", "rest"]
    assert [tuple(one.span) for one in phases] == [(0, 10), (10, 12), (12, 62)]  # rounded up; train.steps by default
    weights = [{"clm": {"de": 1.0}}, {"mlm": {"de": 2.0}}, {"mlm": {"de": 2.0}}]
    assert [one.settings.data.weights for one in phases] == weights
    assert [one.settings.mask.prob for one in phases] == [0.3, 0.3, 0.1]
    assert [one.settings.train.batch_tokens for one in phases] == [8192, 16384, 16384]
    assert [phase_at(phases, step).number for step in (0, 9, 10, 11, 12, 61, 62, 99)] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert total_tokens(phases) == 10 * 8192 + 52 * 16384
    assert combined_data(composed(f"[{first}, {second}]")).weights == {"mlm": {"de": 2.0}, "clm": {"de": 1.0}}


def test_without_phases_there_is_one_that_changes_nothing() -> None:
    config = compose("config", GIVEN)
    (only,) = phases_of(config)
    assert (only.settings, tuple(only.span), only.name) == (config, (0, 50), "")


def rates(config: Config) -> list[float]:
    phases = phases_of(config)
    return [phase_learning_rate(phase_at(phases, step), step) for step in range(phases[-1].span.end)]


def test_warm_up_stable_decay_is_two_phases() -> None:
    optim = {"optim.lr": 0.8, "optim.warmup_steps": 4, "optim.warmup_init_lr": 0.0, "optim.schedule": "constant"}
    phases = [phase("stable", 10, optim__schedule="constant"), phase("decay", 5, optim__schedule="linear")]
    expected = [0.2 * step for step in range(4)] + [0.8] * 6 + [0.8 * (1 - step / 5) for step in range(5)]
    assert rates(tiny_config("r", "d", {**optim, "phases": phases})) == pytest.approx(expected)


LATER: list[tuple[dict[str, Any], Callable[[int], float]]] = [
    ({"mask__prob": 0.5}, lambda step: 0.5 * (1 + math.cos(math.pi * (step - 5) / 15))),  # the cosine goes on
    ({"optim__lr": 0.5}, lambda step: 0.25 * (1 + math.cos(math.pi * (step - 5) / 15))),  # half as high
    ({"optim__decay_steps": 4}, lambda step: 0.5 * (1 + math.cos(math.pi * min((step - 12) / 4, 1)))),  # a new one
    ({"optim__warmup_steps": 2, "optim__warmup_init_lr": 0.0}, lambda step: [0.0, 0.5, 1.0][min(step - 12, 2)]),
]


@pytest.mark.parametrize(("change", "rate"), LATER)
def test_only_the_shape_of_the_rate_begins_anew(change: dict[str, Any], rate: Callable[[int], float]) -> None:
    optim = {"optim.lr": 1.0, "optim.schedule": "cosine", "optim.warmup_steps": 5}
    found = rates(tiny_config("r", "d", {**optim, "phases": [phase("a", 12), phase("b", 8, **change)]}))
    if "optim__warmup_steps" in change:
        assert found[12:15] == pytest.approx([rate(step) for step in range(12, 15)])
    else:
        assert found[12:] == pytest.approx([rate(step) for step in range(12, 20)])


def test_a_loss_weight_counts_from_the_phase_that_gives_it() -> None:
    changes = {"data.loss_weight": {"mlm": "0:1,10:0"}}
    weighted = phase("b", 10, data__loss_weight={"tlm": "0:0,4:1"})
    phases = phases_of(tiny_config("r", "d", {**changes, "phases": [phase("a", 5), weighted, phase("c", 5)]}))
    factors = [phase_at(phases, step).loss_factor("tlm", step) for step in (4, 5, 7, 9, 16)]
    assert factors == [1.0, 0.0, 0.5, 1.0, 1.0]
    assert [phase_at(phases, step).loss_factor("mlm", step) for step in (4, 5)] == [0.6, 1.0]


MISTAKES = [
    ("[{name: a}, {name: b, data: {mask_prob: 1}}]", "phases[1].data.mask_prob: a phase does not change this; did you"),
    ("[{name: a, model: {dim: 8}}]", "phases[0].model: a phase does not change this"),
    ("[{name: a, optim: {fused: apex}}]", "phases[0].optim.fused: a phase does not change this"),
    ("[{name: a}, {name: b, optim: {lr: fast}}]", "phases[1].optim.lr: Value 'fast' of type 'str' could not"),
    ("[{name: a, optim: {schedule: wsd}}]", "phases[0].optim.schedule: Invalid value 'wsd', expected one of"),
    ("[{name: a, data: {mlm: {de: much}}}]", "phases[0].data.mlm.de: Value 'much'"),
    ("[{name: a}, {name: b, mask: {prob: 7}}]", "wrong settings:\n  phases[1].mask.prob: 7.0 is not above 0 and"),
    ("[{name: a, data: {sequence_length: 48}}]", "wrong settings:\n  phases[0].data.sub_batch_tokens: 8192 is no mult"),
    ("[{name: a, data: {mlm: {}}}]", "wrong settings:\n  phases[0].data.mlm: nothing to train on"),
    ("[{name: a, steps: 0}]", "wrong settings:\n  phases[0].steps: 0 is not above 0"),
    ("[{name: a, steps: 1, tokens: 1}]", "wrong settings:\n  phases[0].tokens: 1 and steps=1 are two lengths"),
    ("[{name: a}, {name: a}]", "wrong settings:\n  phases[1].name: a is the name of another phase, too"),
    ("[{steps: 1}]", "these settings have no value yet: phases[0].name=..."),
    ("[a]", "phases[0]: "),
    ("3", "phases: 3 is no list"),
]


@pytest.mark.parametrize(("phases", "complaint"), MISTAKES, ids=[complaint for _, complaint in MISTAKES])
def test_mistakes_are_named_by_their_key_path(phases: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(phases)
    assert str(caught.value).startswith(complaint)
