"""Sampling from the mixture of objectives and languages: the sub-batches of each global batch.

Every process computes the same plan, from the seed and the step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from xlmtrain.config.data import OBJECTIVES, SEQ2SEQ_OBJECTIVES, DataConfig
from xlmtrain.data.dataset import Dataset, corpus_names
from xlmtrain.data.sources import DocumentSource, PairSource, Seq2SeqSource, Source, WindowSource
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.rng import generator


@dataclass(frozen=True)
class MixtureComponent:
    """One objective on one language or pair (``key``), with its weight in the mixture."""

    objective: str
    key: str
    source: Source
    weight: float

    @property
    def name(self) -> str:
        """Name like ``mlm.en`` or ``tlm.de-en``."""
        return f"{self.objective}.{self.key}"


@dataclass(frozen=True)
class SubBatch:
    """One sub-batch of a global batch: number ``index`` of the component's ``epoch``, at ``slot`` of the batch."""

    component: MixtureComponent
    epoch: int
    index: int
    slot: int

    @property
    def name(self) -> str:
        """Component and position in it, for messages."""
        return f"{self.component.name}, epoch {self.epoch}, sub-batch {self.index}"


SamplerState = dict[str, tuple[int, int]]
"""Component name -> (epoch, index) of its next sub-batch; the complete state of the data pipeline."""


Sources = dict[tuple[str, str, int, int], Source]
"""(objective, key, tokens of a sub-batch, length) -> source, so that phases share what they read alike."""


def make_mixture(
    config: DataConfig, dataset: Dataset, seed: int, sources: Sources | None = None
) -> list[MixtureComponent]:
    """Return the components with a weight above 0. Raises ConfigError if the training text lacks a language or pair.

    ``sources``: those made before, taken where they are the same; new ones are added.
    """
    made, components = {} if sources is None else sources, []
    for objective, weights in config.weights.items():
        length = config.sequence_length if objective in ("mlm", "clm") else config.max_sentence_length
        for key, weight in weights.items():
            place = (objective, key, config.sub_batch_tokens, length)
            if place not in made:
                made[place] = _make_source(config, dataset, objective, key, seed)
            components.append(MixtureComponent(objective, key, made[place], weight))
    return components


def _make_source(config: DataConfig, dataset: Dataset, objective: str, key: str, seed: int) -> Source:
    names, languages = corpus_names("train", objective, key), key.split("-")
    pair = objective in ("tlm", "mt", "bt")
    if not len(set(languages)) == len(languages) == 1 + pair:
        kinds = {"tlm": "pairs, like de-en", "mt": "directions, like de-en", "bt": "directions; de-en reads English"}
        raise ConfigError(f"data.{objective}.{key}: the keys are {kinds.get(objective, 'languages, like de')}")
    if not set(languages) <= set(dataset.languages) or not all(dataset.has(name) for name in names):
        available = ", ".join(name for name in sorted(dataset.header.corpora) if name.startswith("train."))
        raise ConfigError(
            f"data.{objective}.{key}: {dataset.path} has no such training text, it has {available}; "
            f"data.{objective}.{key}=0 leaves it out"
        )
    ids = [dataset.language_id(language) for language in languages]
    if objective == "tlm" or objective in SEQ2SEQ_OBJECTIVES:
        kind = Seq2SeqSource if objective in SEQ2SEQ_OBJECTIVES else PairSource
        sides = dataset.pair("train", key) if len(names) == 2 else (dataset.corpus(names[0]),) * 2
        return kind(
            sides, [ids[0], ids[-1]], config.sub_batch_tokens, config.max_sentence_length, seed, dataset.vocab.special
        )
    corpus, length = dataset.corpus(names[0]), config.sequence_length
    if corpus.documents and not config.across_documents:
        return DocumentSource(corpus, ids[0], length, config.sub_batch_tokens, seed, dataset.vocab.special)
    return WindowSource(corpus, ids[0], length, config.sub_batch_tokens // length, seed)


def probabilities(components: list[MixtureComponent], alpha: float) -> np.ndarray:
    """Return the probability of each component, (len(components),).

    An objective's share is the sum of its weights; within it, p ~ weight * sentences^alpha (Lample & Conneau 2019,
    section 3.1, whose q_i = p_i^alpha / sum p_j^alpha is the same after normalization).
    """
    result = np.empty(len(components))
    for objective in OBJECTIVES:
        chosen = [i for i, component in enumerate(components) if component.objective == objective]
        if chosen:
            sizes = np.array([components[i].weight * components[i].source.sentences ** alpha for i in chosen])
            result[chosen] = sizes / sizes.sum() * sum(components[i].weight for i in chosen)
    return result / result.sum()


def _step_back(state: SamplerState, component: MixtureComponent) -> None:
    """Let ``component``, if it is of back-translation, take its last sub-batch once more."""
    if component.objective == "bt":
        epoch, index = state[component.name]
        if not index:
            epoch, index = epoch - 1, component.source.sub_batch_count(epoch - 1)
        state[component.name] = (epoch, index - 1)


class Sampler:
    """Plans global batches: for each slot, draws a component at random and takes its next sub-batch.

    ``loss_factor``: of an objective at a step; components of objectives with the factor 0 are not drawn.
    ``translation_step``: of a step, the step that makes its translations for back-translation. Steps with the same one
    have the components drawn at that step, and those of back-translation the same sub-batches.
    """

    def __init__(
        self,
        components: list[MixtureComponent],
        alpha: float,
        sub_batches_per_step: int,
        seed: int,
        loss_factor: Callable[[str, int], float] = lambda objective, step: 1.0,
        translation_step: Callable[[int], int] = lambda step: step,
    ) -> None:
        self.components = components
        self.probabilities = probabilities(components, alpha)
        self._loss_factor, self._translation_step = loss_factor, translation_step
        self._sub_batches_per_step, self._seed = sub_batches_per_step, seed

    def _cumulative(self, step: int) -> np.ndarray:
        drawn = [self._loss_factor(component.objective, step) > 0 for component in self.components]
        cumulative = np.cumsum(self.probabilities * drawn)
        return cumulative / cumulative[-1]

    def initial_state(self) -> SamplerState:
        """Return the state of a new run."""
        return {component.name: (0, 0) for component in self.components}

    def begin(self, state: SamplerState, recut: Collection[str]) -> SamplerState:
        """Return ``state``, of the phase before, as this sampler begins with it.

        Components in ``recut`` cut their text into other sub-batches than before, and begin their next epoch.
        """
        after = self.initial_state() | state
        return after | {name: (after[name][0] + (after[name][1] > 0), 0) for name in recut}

    def plan_batch(self, step: int, state: SamplerState) -> tuple[list[SubBatch], SamplerState]:
        """Return the sub-batches of the global batch of ``step`` (from 0), and the state after it."""
        first = self._translation_step(step)
        # The purpose "tasks" keys the random numbers, so it stays: another word would change the batches.
        uniform = generator(self._seed, "tasks", first).random(self._sub_batches_per_step)
        # Generator.choice(p=...) draws the same, but spends half of its time on checking p.
        chosen = self._cumulative(first).searchsorted(uniform, side="right").tolist()
        after, sub_batches = dict(state), []
        if first < step:
            for number in chosen:
                _step_back(after, self.components[number])
        for slot, number in enumerate(chosen):
            component = self.components[number]
            epoch, index = after[component.name]
            sub_batches.append(SubBatch(component, epoch, index, slot))
            last = index + 1 == component.source.sub_batch_count(epoch)
            after[component.name] = (epoch + 1, 0) if last else (epoch, index + 1)
        return sub_batches, after

    def passes(self, steps: int) -> list[float]:
        """Return how often ``steps`` steps read the text of each component."""
        count = steps * self._sub_batches_per_step
        return [
            float(count * share / component.source.sub_batch_count(0))
            for component, share in zip(self.components, self.probabilities)
        ]
