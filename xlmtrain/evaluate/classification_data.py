"""Labelled text for classification: lines of label and text, or tables like those of XNLI, PAWS-X and GLUE.

A text is encoded as ``</s> w .. </s>``, a pair as ``</s> a .. </s> b .. </s>`` with continuous positions and in one
language, as the original XLM reads XNLI.
"""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from xlmtrain.config.families import ONE_SEPARATOR, PairLayout
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.tables import MIN_DISTINCT, read_labelled_rows
from xlmtrain.text.moses import normalize_unicode
from xlmtrain.text.pipeline import TextPipeline
from xlmtrain.text.vocab import XLM_IDS, SpecialIds

log = logging.getLogger(__name__)

# XNLI-MT's training text spells this label differently from XNLI's dev and test.
_SAME_LABEL = {"contradictory": "contradiction"}
_NO_TEXT = ("", "NS")  # PAWS-X: could not be translated


@dataclass(frozen=True)
class Example:
    """One text or a pair of texts, with its label; ``line``: of its file, from 1."""

    label: str
    texts: tuple[str, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Encoded:
    """Encoded examples of a file: ``ids`` of each, ending with EOS; ``labels`` (M, ...) of all targets; the language's
    id. ``positions``: of each example's targets in its row, which begins with BOS; None for one target at 0.
    ``special``: ids of the vocabulary's special symbols. ``second``: where the token types of each row become 1, None
    for rows of type 0."""

    ids: list[np.ndarray]
    labels: np.ndarray
    language: int
    positions: list[np.ndarray] | None = None
    special: SpecialIds = XLM_IDS
    second: list[int] | None = None

    @cached_property
    def starts(self) -> np.ndarray:
        """Index (N + 1,) of each example's first label, and M."""
        counts = [1] * len(self.ids) if self.positions is None else [len(places) for places in self.positions]
        return np.cumsum([0, *counts])

    def targets(self, example: int) -> slice:
        """Return the indices of an example's labels."""
        return slice(self.starts[example], self.starts[example + 1])


def read_examples(
    path: Path,
    language: str,
    setting: str,
    columns: Sequence[str] = (),
    numeric: bool = False,
    may_lack_label: bool = False,
    is_label: Callable[[str], bool] | None = None,
) -> list[Example]:
    """Return the examples of a language in a file; ``setting``: the option that named it, for messages.

    ``columns``, ``numeric``, ``is_label``: as in :func:`~xlmtrain.evaluate.tables.read_labelled_rows`; given
    ``is_label``, every line is an example, with an empty label in a file without labels. Else lines without text or
    (unless they ``may_lack_label``) label, which published files contain, are left out with a warning. Raises DataError
    for a file that is missing or without examples, whose columns are not known, or a line with another number of
    columns than the first.
    """
    found: list[Example] = []
    left_out, first_left_out = 0, 0
    layout, rows = read_labelled_rows(path, setting, columns, numeric, is_label)
    for number, cells in rows:
        if is_label is None and layout.has_header and len(cells) <= max(layout.label or 0, *layout.texts):
            left_out, first_left_out = left_out + 1, first_left_out or number  # as in QQP, a broken line
            continue
        if len(cells) != layout.count:
            raise DataError(f"{path}:{number}: {len(cells)} fields between tabs, not {layout.count} as in line 1")
        if layout.language is not None and cells[layout.language] != language_of(language):
            continue
        label = "" if layout.label is None else cells[layout.label]
        texts = tuple(cells[place] for place in layout.texts)
        unlabelled = label in ("", layout.no_label) and not may_lack_label
        if is_label is None and (unlabelled or any(text in _NO_TEXT for text in texts)):
            left_out, first_left_out = left_out + 1, first_left_out or number
        else:
            found.append(Example(_SAME_LABEL.get(label, label), texts, number))
    if left_out:
        log.warning("%s: left out %d lines without text or label, first line %d", path, left_out, first_left_out)
    if not found:
        raise DataError(f"{setting}: no examples of {language} in {path}")
    return found


def labels_of(setting: str, splits: Mapping[str, Mapping[str, Sequence[Example]]]) -> list[str]:
    """Return the labels of all files, sorted; ``splits``: split -> language -> examples, of ``setting``.

    Warns of labels without a training example. Raises DataError if a file has no other, or one that is spelt
    differently in the training text; for a single label there, labels that never recur, or a mix of texts and pairs.
    """
    files = {
        f"{setting}.{split}.{lang}": examples
        for split, by_language in splits.items()
        for lang, examples in by_language.items()
    }
    labels = sorted({example.label for examples in files.values() for example in examples})
    check_texts(setting, splits)
    training = [example.label for examples in splits["train"].values() for example in examples]
    learned = set(training)
    if len(learned) < 2:
        names = ", ".join(f"{setting}.train.{language}" for language in splits["train"])
        raise DataError(f"the only label in {names} is {training[0]!r}; there is nothing to tell apart")
    if len(learned) == len(training) >= MIN_DISTINCT:
        raise DataError(
            f"{setting}.train: each of its {len(training)} examples has a label of its own; is this column the label?"
        )
    spellings = {_spelling(label): label for label in learned}
    for name, examples in files.items():
        unknown = Counter(example.label for example in examples if example.label not in learned)
        for label in unknown:
            if other := spellings.get(_spelling(label)):
                raise DataError(f"{name}: a label is {label!a}, in the training text {other!a}; spell them alike")
        if unknown.total() == len(examples):
            shown = f"{', '.join(sorted(unknown)[:5])}; the training text has {', '.join(sorted(learned)[:5])}"
            raise DataError(f"{name}: none of its labels is in the training text: it has {shown}")
        if unknown:
            log.warning(
                "%s: the labels of %d of its %d examples have no training example: %s",
                *(name, unknown.total(), len(examples), ", ".join(unknown)),
            )
    return labels


def check_texts(setting: str, splits: Mapping[str, Mapping[str, Sequence[Example]]]) -> None:
    """Raise DataError for a mix of texts and pairs; arguments as for :func:`labels_of`."""
    counts = {
        f"{setting}.{split}.{lang}": len(examples[0].texts)
        for split, by_language in splits.items()
        for lang, examples in by_language.items()
    }
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise DataError(f"all files have one text a line, or all have two: {found}")


def _spelling(label: str) -> str:
    plain = unicodedata.normalize("NFKC", normalize_unicode(label)).casefold()
    return plain.strip("\"' ").replace(" ", "_").replace("-", "_")


def encode(
    setting: str,
    files: Mapping[str, Sequence[Example]],
    text: TextPipeline,
    languages: Sequence[str],
    max_positions: int,
    target_of: Callable[[str], object],
    max_tokens: int,
    pair: PairLayout = ONE_SEPARATOR,
) -> dict[str, Encoded]:
    """Return language -> its examples as ids of a model with these ``languages``.

    Each text is truncated to ``max_tokens`` subwords, and so that an example fits into ``max_positions``.
    ``setting``: the option that named the files, for messages. ``target_of``: gives the target of a label.
    ``pair``: separators and token types of pairs. Raises ConfigError for a language unknown to the model.
    """
    special = text.vocab.special
    encoded = {}
    for key, examples in files.items():
        language = language_of(key)
        number = language_id(setting, language, languages)
        parts = len(examples[0].texts)
        more = [special.eos] * (pair.separators - 1)  # before the second text
        longest = min(max_tokens, (max_positions - 1 - len(more) * (parts - 1)) // parts - 1)
        sides = [[[*text.ids(part, language)[:longest], special.eos] for part in e.texts] for e in examples]
        ids = [np.array([*first, *(id for side in rest for id in [*more, *side])]) for first, *rest in sides]
        second = [1 + len(row[0]) + len(more) for row in sides] if pair.token_types and parts > 1 else None
        targets = np.array([target_of(example.label) for example in examples])
        encoded[key] = Encoded(ids, targets, number, special=special, second=second)
    return encoded


def language_of(key: str) -> str:
    """Return the language of the key of a file, ``LANGUAGE`` or ``LANGUAGE/NAME``."""
    return key.partition("/")[0]


def language_id(setting: str, language: str, languages: Sequence[str]) -> int:
    """Return the id of ``language``. Raises ConfigError, which names ``setting``, if the model does not know it."""
    if language not in languages:
        raise ConfigError(f"{setting}: {language} is none of the model's languages, {', '.join(languages)}")
    return languages.index(language)
