"""Which draws make up each global batch: a plan that every process makes alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xlmtrain.config.schema import DataConfig
from xlmtrain.data.dataset import Dataset, corpus_names
from xlmtrain.data.sources import PairSource, Source, StreamSource
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.rng import generator

OBJECTIVES = ("mlm", "tlm", "clm")


@dataclass(frozen=True)
class Task:
    """One objective on one language or pair."""

    objective: str
    key: str
    source: Source
    weight: float

    @property
    def name(self) -> str:
        """Like ``mlm.en`` or ``tlm.de-en``."""
        return f"{self.objective}.{self.key}"


class SubBatch(NamedTuple):
    """One draw of a global batch: its task, its place in the task's source, its number in the batch."""

    task: Task
    epoch: int
    draw: int
    number: int

    @property
    def name(self) -> str:
        """Task and place, for messages."""
        return f"{self.task.name}, epoch {self.epoch}, draw {self.draw}"


SamplerState = dict[str, tuple[int, int]]
"""Task name -> (epoch, draw) that comes next: all the state there is."""


def make_tasks(config: DataConfig, dataset: Dataset, seed: int) -> list[Task]:
    """The tasks with a weight above 0, over the training text.

    Raises ConfigError for a language or pair that the data does not have.
    """
    tasks = []
    for objective in OBJECTIVES:
        for key, weight in getattr(config, objective).items():
            if weight > 0:
                _check_text(dataset, objective, key)
                make = _pairs if objective == "tlm" else _stream
                tasks.append(Task(objective, key, make(config, dataset, key, seed), weight))
    return tasks


def _check_text(dataset: Dataset, objective: str, key: str) -> None:
    """Raise ConfigError if there is no training text for ``data.<objective>.<key>``."""
    names = corpus_names("train", objective, key)
    if (objective == "tlm") != (key.count("-") == 1) or not all(dataset.has(name) for name in names):
        there = ", ".join(name for name in sorted(dataset.header.corpora) if name.startswith("train."))
        raise ConfigError(
            f"data.{objective}.{key}: {dataset.path} has no such training text, it has {there}; "
            f"data.{objective}.{key}=0 leaves it out"
        )


def _stream(config: DataConfig, dataset: Dataset, language: str, seed: int) -> Source:
    rows = config.sub_batch_tokens // config.sequence_length
    index = dataset.language_id(language)
    return StreamSource(dataset.corpus(f"train.{language}"), index, config.sequence_length, rows, seed)


def _pairs(config: DataConfig, dataset: Dataset, pair: str, seed: int) -> Source:
    first, second = (dataset.language_id(language) for language in pair.split("-"))
    corpora = dataset.pair("train", pair)
    return PairSource(*corpora, (first, second), config.sub_batch_tokens, config.max_sentence_length, seed)


def probabilities(tasks: list[Task], alpha: float) -> np.ndarray:
    """The chance of each task at a draw, (len(tasks),).

    An objective's share is the sum of its weights; within it, p ~ weight * sentences^alpha (Lample & Conneau 2019,
    section 3.1, whose q_i = p_i^alpha / sum p_j^alpha is the same after normalization).
    """
    result = np.empty(len(tasks))
    for objective in OBJECTIVES:
        chosen = [i for i, task in enumerate(tasks) if task.objective == objective]
        if chosen:
            sizes = np.array([tasks[i].weight * tasks[i].source.sentences ** alpha for i in chosen])
            result[chosen] = sizes / sizes.sum() * sum(tasks[i].weight for i in chosen)
    return result / result.sum()


class Sampler:
    """Plans global batches: ``draws_per_step`` times a task is drawn at random, then the task's next draw taken."""

    def __init__(self, tasks: list[Task], alpha: float, draws_per_step: int, seed: int) -> None:
        self.tasks = tasks
        self.probabilities = probabilities(tasks, alpha)
        cumulated = np.cumsum(self.probabilities)
        self._cumulated = cumulated / cumulated[-1]
        self._draws_per_step, self._seed = draws_per_step, seed

    def start(self) -> SamplerState:
        """The cursors of a run that begins."""
        return {task.name: (0, 0) for task in self.tasks}

    def plan(self, step: int, cursors: SamplerState) -> tuple[list[SubBatch], SamplerState]:
        """The draws of the global batch of ``step`` (from 0), and the cursors after it."""
        chances = generator(self._seed, "tasks", step).random(self._draws_per_step)
        # What Generator.choice does with probabilities, without the half of its time that it checks them.
        chosen = self._cumulated.searchsorted(chances, side="right").tolist()
        after, draws = dict(cursors), []
        for number, index in enumerate(chosen):
            task = self.tasks[index]
            epoch, draw = after[task.name]
            draws.append(SubBatch(task, epoch, draw, number))
            after[task.name] = (epoch, draw + 1) if draw + 1 < task.source.draws(epoch) else (epoch + 1, 0)
        return draws, after

    def passes(self, steps: int) -> list[float]:
        """Return how often ``steps`` steps read the text of each task."""
        count = steps * self._draws_per_step
        return [float(count * share / task.source.draws(0)) for task, share in zip(self.tasks, self.probabilities)]
