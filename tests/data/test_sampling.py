"""Components are drawn with the published probabilities, and the plan of a step is a function of the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.oracle import Oracle
from tests.support.tiny import tiny_config
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.sampling import MixtureComponent, Sampler, make_mixture, probabilities
from xlmtrain.data.sequences import SequenceBatch
from xlmtrain.errors import ConfigError, DataError


class Text:
    """A source of so many sentences and sub-batches; nobody reads its rows."""

    def __init__(self, sentences: int, sub_batches: int = 7) -> None:
        self.sentences, self._count = sentences, sub_batches

    def sub_batch_count(self, epoch: int) -> int:
        return self._count + epoch % 2

    def sequences(self, epoch: int, index: int) -> SequenceBatch:
        raise NotImplementedError


def test_probabilities_are_the_oracles(oracle: Oracle) -> None:
    sampling = oracle.numbers["sampling"]
    components = [
        MixtureComponent("mlm", language, Text(sampling["sentences"][language]), 1.0)
        for language in sampling["mono_list"]
    ]
    assert probabilities(components, sampling["factor"]) == pytest.approx(sampling["mono_probs"], rel=1e-12)


def test_weights_and_sizes() -> None:
    components = [
        MixtureComponent("mlm", "de", Text(900), 2.0),
        MixtureComponent("mlm", "en", Text(100), 1.0),
        MixtureComponent("tlm", "de-en", Text(5), 1.0),
    ]
    assert probabilities(components, 0.0) == pytest.approx([0.5, 0.25, 0.25])
    # sizes are compared within an objective; the objective as a whole has the sum of its weights
    assert probabilities(components, 1.0) == pytest.approx([0.75 * 18 / 19, 0.75 / 19, 0.25])
    assert probabilities(components, 0.5) == pytest.approx([0.75 * 6 / 7, 0.75 / 7, 0.25])


def test_frequencies_of_components() -> None:
    components = [
        MixtureComponent("mlm", "de", Text(240), 1.0),
        MixtureComponent("mlm", "en", Text(120), 1.0),
        MixtureComponent("tlm", "de-en", Text(9), 1.0),
    ]
    sampler = Sampler(components, 0.7, 16, seed=0)
    state, names = sampler.initial_state(), []
    for step in range(1000):
        sub_batches, state = sampler.plan_batch(step, state)
        names += [sub_batch.component.name for sub_batch in sub_batches]
    for component, p in zip(components, sampler.probabilities):
        expected, deviation = len(names) * p, np.sqrt(len(names) * p * (1 - p))
        assert abs(names.count(component.name) - expected) <= 4 * deviation


def test_every_sub_batch_is_taken_once_in_order_over_epochs() -> None:
    components = [MixtureComponent("mlm", "de", Text(2), 1.0), MixtureComponent("mlm", "en", Text(1), 1.0)]
    sampler = Sampler(components, 0.7, 4, seed=3)
    state, names = sampler.initial_state(), ("mlm.de", "mlm.en")
    taken: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    for step in range(20):
        sub_batches, state = sampler.plan_batch(step, state)
        assert [sub_batch.slot for sub_batch in sub_batches] == [0, 1, 2, 3]
        for sub_batch in sub_batches:
            taken[sub_batch.component.name].append((sub_batch.epoch, sub_batch.index))
    order = [(epoch, index) for epoch in range(20) for index in range(7 + epoch % 2)]
    for name, places in taken.items():
        assert places == order[: len(places)]
        assert state[name] == order[len(places)]


def test_plan_is_a_function_of_seed_step_and_state() -> None:
    components = [MixtureComponent("mlm", "de", Text(2), 1.0), MixtureComponent("mlm", "en", Text(1), 1.0)]
    start = Sampler(components, 0.7, 8, 0).initial_state()
    before = dict(start)
    one, _ = Sampler(components, 0.7, 8, 0).plan_batch(5, start)
    other = Sampler(components, 0.7, 8, 0)
    other.plan_batch(4, start)
    assert other.plan_batch(5, start)[0] == one
    assert start == before
    orders = {
        tuple(d.component.name for d in Sampler(components, 0.7, 8, seed).plan_batch(step, start)[0])
        for seed in (0, 1)
        for step in (5, 6, 7)
    }
    assert len(orders) > 3


def test_components_are_those_with_a_weight(tiny_dataset: Path) -> None:
    config = tiny_config("run", tiny_dataset, {"data.mlm": {"de": 1.0, "en": 0.0}, "data.clm": {"en": 0.5}})
    components = make_mixture(config.data, Dataset(tiny_dataset), 0)
    assert [(component.name, component.weight) for component in components] == [
        ("mlm.de", 1.0),
        ("tlm.de-en", 1.0),
        ("clm.en", 0.5),
    ]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data.mlm": {"fr": 1.0}}, ConfigError, r"data\.mlm\.fr: .* no such training text, it has train\.de"),
        ({"data.tlm": {"de": 1.0}}, ConfigError, r"data\.tlm\.de: the keys are pairs, like de-en"),
        ({"data.tlm": {"en-de": 1.0}}, ConfigError, r"data\.tlm\.en-de: .*train\.de-en\.de.*; data\.tlm\.en-de=0"),
        (
            {"data.sequence_length": 5000, "model.max_positions": 5000, "data.sub_batch_tokens": 5000},
            DataError,
            "less than",
        ),
    ],
)
def test_what_the_data_does_not_have(tiny_dataset: Path, changes: dict, error: type, message: str) -> None:
    if "data.sub_batch_tokens" in changes:
        changes = {**changes, "train.batch_tokens": 5000}
    config = tiny_config("run", tiny_dataset, changes)
    with pytest.raises(error, match=message):
        make_mixture(config.data, Dataset(tiny_dataset), 0)
