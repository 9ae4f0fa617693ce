"""Labelled text for classification: lines of label and text, or the tables of XNLI and PAWS-X.

A text is encoded as ``</s> w .. </s>``, a pair as ``</s> a .. </s> b .. </s>`` with continuous positions and in one
language, as the original XLM reads XNLI.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.parallel_text import read_parallel_lines
from xlmtrain.text.pipeline import TextPipeline
from xlmtrain.text.vocab import EOS

log = logging.getLogger(__name__)

# Column names in the headers of XNLI 1.0, XNLI-MT 1.0, PAWS-X and MultiNLI.
_LABEL, _FIRST, _SECOND = ("gold_label", "label"), ("sentence1", "premise"), ("sentence2", "hypo", "hypothesis")
_LANGUAGE = ("language",)
# XNLI-MT's training text spells this label differently from XNLI's dev and test.
_SAME_LABEL = {"contradictory": "contradiction"}
_NO_LABEL = "-"  # MultiNLI: the annotators did not agree
_NO_TEXT = ("", "NS")  # PAWS-X: could not be translated


@dataclass(frozen=True)
class Example:
    """One text or a pair of texts, with its label."""

    label: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Encoded:
    """Encoded examples of a file: ``ids`` of each, ending with EOS; ``labels`` (N,) int64; the language's id."""

    ids: list[np.ndarray]
    labels: np.ndarray
    language: int


def read_examples(path: Path, language: str, setting: str) -> list[Example]:
    """Return the examples of a language in a file; ``setting``: the option that named it, for messages.

    Lines without text or label, which published files contain, are left out with a warning. Raises DataError for a
    file that is missing or without examples, or a line with another number of fields than the first.
    """
    found: list[Example] = []
    left_out: list[int] = []
    columns: _Columns | None = None
    for number, (line,) in read_parallel_lines(setting, {language: path}):
        fields = [field.strip() for field in line.split("\t")]
        if columns is None:
            columns = _columns(fields, path)
            if columns.has_header:
                continue
        if len(fields) != columns.count:
            raise DataError(f"{path}:{number}: {len(fields)} fields between tabs, not {columns.count} as in line 1")
        if columns.language is not None and fields[columns.language] != language:
            continue
        label, texts = fields[columns.label], tuple(fields[place] for place in columns.texts)
        if label in ("", _NO_LABEL) or any(text in _NO_TEXT for text in texts):
            left_out.append(number)
        else:
            found.append(Example(_SAME_LABEL.get(label, label), texts))
    if left_out:
        log.warning("%s: left out %d lines without text or label, first line %d", path, len(left_out), left_out[0])
    if not found:
        raise DataError(f"{setting}: no examples of {language} in {path}")
    return found


def labels_of(setting: str, splits: Mapping[str, Mapping[str, Sequence[Example]]]) -> list[str]:
    """Return the labels of all files, sorted; ``splits``: split -> language -> examples, of ``setting``.

    Raises DataError for a single label, or a mix of texts and pairs.
    """
    files = {f"{setting}.{split}.{language}": some for split, of in splits.items() for language, some in of.items()}
    labels = sorted({example.label for examples in files.values() for example in examples})
    if len(labels) < 2:
        raise DataError(f"the only label in {', '.join(files)} is {labels[0]!r}; there is nothing to tell apart")
    counts = {name: len(examples[0].texts) for name, examples in files.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise DataError(f"all files have one text a line, or all have two: {found}")
    return labels


def encode(
    setting: str,
    files: Mapping[str, Sequence[Example]],
    text: TextPipeline,
    languages: Sequence[str],
    max_positions: int,
    labels: Sequence[str],
    max_tokens: int,
) -> dict[str, Encoded]:
    """Return language -> its examples as ids of a model with these ``languages``.

    Each text is truncated to ``max_tokens`` subwords, and so that an example fits into ``max_positions``.
    ``setting``: the option that named the files, for messages. Raises ConfigError for a language unknown to the model.
    """
    number = {label: i for i, label in enumerate(labels)}
    encoded = {}
    for language, examples in files.items():
        if language not in languages:
            raise ConfigError(f"{setting}: {language} is none of the model's languages, {', '.join(languages)}")
        parts = len(examples[0].texts)
        longest = min(max_tokens, (max_positions - 1) // parts - 1)
        ids = [
            np.array([id for part in example.texts for id in [*text.ids(part, language)[:longest], EOS]])
            for example in examples
        ]
        targets = np.array([number[example.label] for example in examples])
        encoded[language] = Encoded(ids, targets, languages.index(language))
    return encoded


@dataclass(frozen=True)
class _Columns:
    """Number of columns, and the indices of those that are used."""

    count: int
    label: int
    texts: tuple[int, ...]
    language: int | None
    has_header: bool


def _columns(fields: list[str], path: Path) -> _Columns:
    """Return the columns of a file from its first line, which may be a header."""
    label, first, second, language = (
        next((fields.index(name) for name in names if name in fields), None)
        for names in (_LABEL, _FIRST, _SECOND, _LANGUAGE)
    )
    if label is not None and first is not None:
        return _Columns(len(fields), label, (first,) if second is None else (first, second), language, True)
    if len(fields) not in (2, 3):
        raise DataError(
            f"{path}:1: {len(fields)} fields between tabs; expected label and text, or label and two texts, or a "
            "header with the columns of XNLI or PAWS-X"
        )
    return _Columns(len(fields), 0, tuple(range(1, len(fields))), None, False)
