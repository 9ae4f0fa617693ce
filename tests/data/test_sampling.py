"""Tasks are drawn with the published probabilities, and the plan of a step is a function of the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.oracle import Oracle
from tests.support.tiny import tiny_config
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.sampling import Sampler, Task, make_tasks, probabilities
from xlmtrain.data.sequences import Sequences
from xlmtrain.errors import ConfigError, DataError


class Text:
    """A source of so many sentences and draws; nobody reads its rows."""

    def __init__(self, sentences: int, draws: int = 7) -> None:
        self.sentences, self._draws = sentences, draws

    def draws(self, epoch: int) -> int:
        return self._draws + epoch % 2

    def rows(self, epoch: int, draw: int) -> Sequences:
        raise NotImplementedError


def test_probabilities_are_the_oracles(oracle: Oracle) -> None:
    sampling = oracle.numbers["sampling"]
    tasks = [Task("mlm", language, Text(sampling["sentences"][language]), 1.0) for language in sampling["mono_list"]]
    assert probabilities(tasks, sampling["factor"]) == pytest.approx(sampling["mono_probs"], rel=1e-12)


def test_weights_and_sizes() -> None:
    tasks = [Task("mlm", "de", Text(900), 2.0), Task("mlm", "en", Text(100), 1.0), Task("tlm", "de-en", Text(5), 1.0)]
    assert probabilities(tasks, 0.0) == pytest.approx([0.5, 0.25, 0.25])
    # sizes are compared within an objective; the objective as a whole has the sum of its weights
    assert probabilities(tasks, 1.0) == pytest.approx([0.75 * 18 / 19, 0.75 / 19, 0.25])
    assert probabilities(tasks, 0.5) == pytest.approx([0.75 * 6 / 7, 0.75 / 7, 0.25])


def test_frequencies_of_draws() -> None:
    tasks = [Task("mlm", "de", Text(240), 1.0), Task("mlm", "en", Text(120), 1.0), Task("tlm", "de-en", Text(9), 1.0)]
    sampler = Sampler(tasks, 0.7, 16, seed=0)
    cursors, names = sampler.start(), []
    for step in range(1000):
        draws, cursors = sampler.plan(step, cursors)
        names += [draw.task.name for draw in draws]
    for task, p in zip(tasks, sampler.probabilities):
        expected, deviation = len(names) * p, np.sqrt(len(names) * p * (1 - p))
        assert abs(names.count(task.name) - expected) <= 4 * deviation


def test_every_draw_is_taken_once_in_order_over_epochs() -> None:
    tasks = [Task("mlm", "de", Text(2), 1.0), Task("mlm", "en", Text(1), 1.0)]
    sampler = Sampler(tasks, 0.7, 4, seed=3)
    cursors, names = sampler.start(), ("mlm.de", "mlm.en")
    taken: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    for step in range(20):
        draws, cursors = sampler.plan(step, cursors)
        assert [draw.number for draw in draws] == [0, 1, 2, 3]
        for draw in draws:
            taken[draw.task.name].append((draw.epoch, draw.draw))
    order = [(epoch, draw) for epoch in range(20) for draw in range(7 + epoch % 2)]
    for name, places in taken.items():
        assert places == order[: len(places)]
        assert cursors[name] == order[len(places)]


def test_plan_is_a_function_of_seed_step_and_cursors() -> None:
    tasks = [Task("mlm", "de", Text(2), 1.0), Task("mlm", "en", Text(1), 1.0)]
    start = Sampler(tasks, 0.7, 8, 0).start()
    before = dict(start)
    one, _ = Sampler(tasks, 0.7, 8, 0).plan(5, start)
    other = Sampler(tasks, 0.7, 8, 0)
    other.plan(4, start)
    assert other.plan(5, start)[0] == one
    assert start == before
    orders = {
        tuple(d.task.name for d in Sampler(tasks, 0.7, 8, seed).plan(step, start)[0])
        for seed in (0, 1)
        for step in (5, 6, 7)
    }
    assert len(orders) > 3


def test_tasks_are_those_with_a_weight(tiny_dataset: Path) -> None:
    config = tiny_config("run", tiny_dataset, {"data.mlm": {"de": 1.0, "en": 0.0}, "data.clm": {"en": 0.5}})
    tasks = make_tasks(config.data, Dataset(tiny_dataset), 0)
    assert [(task.name, task.weight) for task in tasks] == [("mlm.de", 1.0), ("tlm.de-en", 1.0), ("clm.en", 0.5)]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data.mlm": {"fr": 1.0}}, ConfigError, r"data\.mlm\.fr: .* no such training text, it has train\.de"),
        ({"data.tlm": {"de": 1.0}}, ConfigError, r"data\.tlm\.de: .* no such training text"),
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
        make_tasks(config.data, Dataset(tiny_dataset), 0)
