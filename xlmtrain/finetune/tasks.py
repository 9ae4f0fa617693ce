"""Kinds of tasks: how examples are read and encoded, what the head is trained on, and how it is scored.

Letters: M targets (an example has one; with ``kind=tokens`` one for each word), C outputs of the head.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from xlmtrain.config.finetune import KIND_METRICS, SelectionMetric, TaskConfig, TaskKind
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.classification_data import (
    Encoded,
    Example,
    check_texts,
    encode,
    labels_of,
    language_id,
    language_of,
    read_examples,
)
from xlmtrain.evaluate.tables import is_number
from xlmtrain.finetune.scores import Scores, correlations, entity_f1, f1_scores
from xlmtrain.finetune.tagged_text import TaggedSentence, read_tagged
from xlmtrain.finetune.words import ids_of_words
from xlmtrain.interop.bundle import FinetunedBundle, PretrainedBundle

log = logging.getLogger(__name__)
E = TypeVar("E", Example, TaggedSentence)
Files = Mapping[str, Mapping[str, Sequence[E]]]
"""Split -> language -> examples."""
Saved = PretrainedBundle | FinetunedBundle
Splits = dict[str, dict[str, Encoded]]
_IOB = re.compile(r"O|[BI]-.+")


class Task(ABC, Generic[E]):
    """A task of one kind. ``labels``: all labels, sorted; known once the files were encoded.

    A subclass reads the examples of a file, finds the labels of all files, and encodes those of a split.
    """

    kind: TaskKind
    per_token = False

    def __init__(self, config: TaskConfig) -> None:
        self.config = config
        self.labels: list[str] = []

    @property
    def outputs(self) -> int:
        """C, the outputs of the head."""
        return len(self.labels)

    @property
    def metrics(self) -> tuple[SelectionMetric, ...]:
        """Metrics of the task, the default one first."""
        return KIND_METRICS[self.kind]

    def encode_files(self, paths: Mapping[str, Mapping[str, str]], saved: Saved) -> Splits:
        """Return split -> language -> :class:`Encoded`; ``paths``: split -> language -> file. Raises DataError for
        invalid files, ConfigError for a language that the model does not know."""
        files = {
            split: {lang: self._read(Path(path), lang, f"task.{split}.{lang}") for lang, path in by_language.items()}
            for split, by_language in paths.items()
        }
        self.labels = self._find_labels(files)
        return {split: self.encode(examples, saved) for split, examples in files.items()}

    @abstractmethod
    def _read(self, path: Path, language: str, setting: str) -> list[E]:
        """Return the examples of a file; ``setting``: the option that named it, for messages."""

    @abstractmethod
    def _find_labels(self, files: Files[E]) -> list[str]:
        """Return the labels of all files, sorted. Raises DataError if they cannot be learned."""

    @abstractmethod
    def encode(self, files: Mapping[str, Sequence[E]], saved: Saved) -> dict[str, Encoded]:
        """Return language -> the examples as ids, with their targets."""

    def target(self, cell: Any) -> Any:
        """Return the target of the cell of a labelled file: the index of a label, a number, or C of 0 and 1."""
        return self.labels.index(cell)

    def is_label(self, cell: str) -> bool:
        """Return whether a cell of a labelled file has a target."""
        return cell in self.labels

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss () summed over the targets; ``logits`` (M, C) fp32."""
        return F.cross_entropy(logits, targets, reduction="sum")

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the predictions in the shape of the targets."""
        return logits.argmax(dim=1)

    @abstractmethod
    def score(self, predicted: np.ndarray, file: Encoded) -> Scores:
        """Return the scores of predictions for ``file``."""


class TextTask(Task[Example]):
    """A task with one target for each text or pair of texts."""

    def encode(self, files: Mapping[str, Sequence[Example]], saved: Saved) -> dict[str, Encoded]:
        pair = saved.pair if isinstance(saved, FinetunedBundle) else saved.config.parts.classifier.pair
        limits = saved.config.max_positions, self.target, self.config.max_tokens, pair
        return encode("task", files, saved.pipeline(), saved.languages, *limits)


class Classification(TextTask):
    """One of C labels for a text or a pair."""

    kind = TaskKind.classification

    @property
    def metrics(self) -> tuple[SelectionMetric, ...]:
        """Metrics of the task, the default one first; ``binary_f1`` only for two labels."""
        return super().metrics if len(self.labels) == 2 else super().metrics[:-1]

    def _read(self, path: Path, language: str, setting: str) -> list[Example]:
        return read_examples(path, language, setting, self.config.columns)

    def _find_labels(self, files: Files[Example]) -> list[str]:
        return labels_of("task", files)

    def score(self, predicted: np.ndarray, file: Encoded) -> Scores:
        return f1_scores(file.labels, predicted, self.outputs, self.metrics)


class Regression(TextTask):
    """A number for a text or a pair; trained on the squared error."""

    kind = TaskKind.regression

    @property
    def outputs(self) -> int:
        return 1

    def _read(self, path: Path, language: str, setting: str) -> list[Example]:
        examples = read_examples(path, language, setting, self.config.columns, numeric=True)
        for example in examples:
            if not is_number(example.label):
                raise DataError(f"{path}:{example.line}: {example.label[:60]!r} is not a number")
        return examples

    def _find_labels(self, files: Files[Example]) -> list[str]:
        check_texts("task", files)
        return []

    def target(self, cell: Any) -> Any:
        return np.float32(cell)

    def is_label(self, cell: str) -> bool:
        return is_number(cell)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(logits[:, 0], targets, reduction="sum")

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 0]

    def score(self, predicted: np.ndarray, file: Encoded) -> Scores:
        return correlations(file.labels, predicted)


class Multilabel(TextTask):
    """Any number of C labels for a text or a pair, separated by commas; trained on the mean binary cross-entropy."""

    kind = TaskKind.multilabel

    def _read(self, path: Path, language: str, setting: str) -> list[Example]:
        return read_examples(path, language, setting, self.config.columns, may_lack_label=True)

    def _find_labels(self, files: Files[Example]) -> list[str]:
        check_texts("task", files)
        single = {
            split: {
                language: [Example(label, e.texts) for e in examples for label in split_labels(e.label)]
                for language, examples in by_language.items()
            }
            for split, by_language in files.items()
        }
        labelled = {
            split: {language: examples for language, examples in by_language.items() if examples}
            for split, by_language in single.items()
        }
        if not any(labelled.values()):
            raise DataError("task: no label in any file")
        return labels_of("task", labelled)

    def target(self, cell: Any) -> Any:
        given = split_labels(cell)
        return np.array([label in given for label in self.labels], dtype=np.float32)

    def is_label(self, cell: str) -> bool:
        return set(split_labels(cell)) <= set(self.labels)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / self.outputs

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return (logits > 0).float()

    def score(self, predicted: np.ndarray, file: Encoded) -> Scores:
        return f1_scores(file.labels, predicted, self.outputs, self.metrics)


def split_labels(cell: str) -> list[str]:
    """Return the labels in a cell, which commas separate."""
    return [label for part in cell.split(",") if (label := part.strip())]


class TokenClassification(Task[TaggedSentence]):
    """One of C labels for each word, predicted at its first subword."""

    kind = TaskKind.tokens
    per_token = True

    @property
    def metrics(self) -> tuple[SelectionMetric, ...]:
        """Metrics of the task, the default one first; those of entities only for tags B-, I- and O."""
        accuracy, f1, entities = KIND_METRICS[self.kind]
        has_entities = any(tag != "O" for tag in self.labels) and all(map(_IOB.fullmatch, self.labels))
        return (entities, f1, accuracy) if has_entities else (accuracy, f1)

    def _read(self, path: Path, language: str, setting: str) -> list[TaggedSentence]:
        return read_tagged(path, setting, self.config.columns)

    def _find_labels(self, files: Files[TaggedSentence]) -> list[str]:
        words = {
            split: {
                language: [Example(t, (w,)) for s in sentences for w, t in zip(s.words, s.tags)]
                for language, sentences in by_language.items()
            }
            for split, by_language in files.items()
        }
        return labels_of("task", words)

    def encode(self, files: Mapping[str, Sequence[TaggedSentence]], saved: Saved) -> dict[str, Encoded]:
        text, most = saved.pipeline(), min(self.config.max_tokens, saved.config.max_positions - 2)
        special = text.vocab.special
        encoded = {}
        for language, sentences in files.items():
            number = language_id("task", language_of(language), saved.languages)
            ids, positions, lost = [], [], 0
            labels: list[int] = []
            for sentence in sentences:
                words = ids_of_words(text, sentence.words, language_of(language))
                starts = np.cumsum([1, *map(len, words)])[:-1]  # after the BOS that begins a row
                fitting = starts[starts <= most]
                ids.append(np.array([*[id for word in words for id in word][:most], special.eos]))
                positions.append(fitting)
                labels += map(self.target, sentence.tags[: len(fitting)])
                lost += len(words) - len(fitting)
            if lost:
                place = f"behind the first {most} subwords of their sentences"
                log.warning("%s: %d words are %s, and not used", language, lost, place)
            encoded[language] = Encoded(ids, np.array(labels), number, positions, special)
        return encoded

    def score(self, predicted: np.ndarray, file: Encoded) -> Scores:
        scores = f1_scores(file.labels, predicted, self.outputs, self.metrics)
        if SelectionMetric.entity_f1 in self.metrics:
            tags = [
                [[self.labels[int(i)] for i in values[file.targets(n)]] for n in range(len(file.ids))]
                for values in (file.labels, predicted)
            ]
            scores.metrics["entity_f1"] = entity_f1(*tags)
        return scores


def make_task(config: TaskConfig) -> Task[Any]:
    """Return the task that the settings describe."""
    kinds: list[type[Task[Any]]] = [Classification, Regression, Multilabel, TokenClassification]
    return next(kind for kind in kinds if kind.kind is config.kind)(config)


def task_of(bundle: FinetunedBundle) -> Task[Any]:
    """Return the task of a fine-tuned model, with its labels."""
    task = make_task(TaskConfig(bundle.kind, max_tokens=bundle.max_tokens))
    task.labels = bundle.labels
    return task


def selection_metric(chosen: SelectionMetric | None, task: Task[Any]) -> SelectionMetric:
    """Return the metric that selects the best weights. Raises ConfigError if the task's labels do not have it."""
    if chosen is not None and chosen not in task.metrics:
        names = ", ".join(metric.value for metric in task.metrics)
        raise ConfigError(f"evaluate.metric={chosen.value}: not for these labels, which have {names}")
    return chosen or task.metrics[0]
