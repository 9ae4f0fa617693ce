"""Labelled text as it is published, lines of label and text, or the tables of XNLI and PAWS-X; and as ids.

A text is read as ``</s> w .. </s>``, a pair as ``</s> a .. </s> b .. </s>`` with positions that run on, as the ancestor
reads XNLI's. All of a row is in one language.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.parallel_text import read_parallel_lines
from xlmtrain.text.pipeline import TextPipeline
from xlmtrain.text.vocab import EOS

log = logging.getLogger(__name__)

# Columns of tables with a header: XNLI 1.0, XNLI-MT 1.0, PAWS-X, MultiNLI.
_LABEL, _FIRST, _SECOND = ("gold_label", "label"), ("sentence1", "premise"), ("sentence2", "hypo", "hypothesis")
_LANGUAGE = "language"
# XNLI-MT's training text spells this label otherwise than XNLI's dev and test.
_SAME_LABEL = {"contradictory": "contradiction"}
_NO_LABEL = "-"  # MultiNLI: the annotators did not agree
_NO_TEXT = ("", "NS")  # PAWS-X: could not be translated


@dataclass(frozen=True)
class Example:
    """A text, or two, and what it is labelled."""

    label: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Encoded:
    """One file's examples: ``ids``, each ending with EOS; ``labels`` (N,) int64; the language's id."""

    ids: list[np.ndarray]
    labels: np.ndarray
    language: int


@dataclass(frozen=True)
class _Columns:
    """Where the fields of a line are."""

    count: int
    label: int
    texts: tuple[int, ...]
    language: int | None = None


def read_examples(path: Path, language: str, setting: str) -> list[Example]:
    """The examples of a language in a file; ``setting``: who asked for it, for messages.

    Lines without text or label, which the published files have, are left out with a warning. Raises DataError for a
    file that is missing or empty, a line of another number of fields, or one text here and two there.
    """
    found: list[Example] = []
    left_out: list[int] = []
    columns = None
    for number, (line,) in read_parallel_lines(setting, {language: path}):
        fields = [field.strip() for field in line.split("\t")]
        if columns is None:
            columns = _header(fields)
            if columns is not None:
                continue
            columns = _plain(fields, path)
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


def labels_of(files: Mapping[str, list[Example]]) -> list[str]:
    """All labels of ``files``, sorted; raises DataError if there is one alone, or if texts and pairs are mixed."""
    labels = sorted({example.label for examples in files.values() for example in examples})
    if len(labels) < 2:
        raise DataError(f"the only label in {', '.join(files)} is {labels[0]!r}; there is nothing to tell apart")
    counts = {name: len(examples[0].texts) for name, examples in files.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            "all files have one text a line, or all have two: "
            + ", ".join(f"{name} has {count}" for name, count in counts.items())
        )
    return labels


def encode(
    setting: str,
    files: Mapping[str, Sequence[Example]],
    text: TextPipeline,
    languages: Sequence[str],
    positions: int,
    labels: Sequence[str],
    max_tokens: int,
) -> dict[str, Encoded]:
    """Every language's examples as a model of these ``languages`` reads them, each text cut to ``max_tokens`` subwords,
    and a pair's two so that both fit into its ``positions``.

    ``setting``: who asked for them, for messages. Raises ConfigError for a language that the model does not know.
    """
    number = {label: i for i, label in enumerate(labels)}
    encoded = {}
    for language, examples in files.items():
        if language not in languages:
            raise ConfigError(f"{setting}: {language} is none of the model's languages, {', '.join(languages)}")
        parts = len(examples[0].texts)
        longest = min(max_tokens, (positions - 1) // parts - 1)
        ids = [
            np.array([id for part in example.texts for id in [*text.ids(part, language)[:longest], EOS]])
            for example in examples
        ]
        targets = np.array([number[example.label] for example in examples])
        encoded[language] = Encoded(ids, targets, languages.index(language))
    return encoded


def _header(fields: list[str]) -> _Columns | None:
    """The columns that a table's first line names; None if it is no header."""
    label, first = (next(_places(fields, names), None) for names in (_LABEL, _FIRST))
    if label is None or first is None:
        return None
    second = next(_places(fields, _SECOND), None)
    language = fields.index(_LANGUAGE) if _LANGUAGE in fields else None
    return _Columns(len(fields), label, (first,) if second is None else (first, second), language)


def _places(fields: list[str], names: tuple[str, ...]) -> Iterator[int]:
    return (fields.index(name) for name in names if name in fields)


def _plain(fields: list[str], path: Path) -> _Columns:
    if len(fields) not in (2, 3):
        raise DataError(
            f"{path}:1: {len(fields)} fields between tabs; expected label and text, or label and two texts, or a "
            "header with the columns of XNLI or PAWS-X"
        )
    return _Columns(len(fields), 0, tuple(range(1, len(fields))))
