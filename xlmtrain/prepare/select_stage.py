"""Stage ``select``: the tokenized text of a shard -> that without known sentences, with word counts for BPE training.

A sentence is known if it repeats an earlier one or is in the held-out text; this shows only after tokenization, as
sentences are compared by their tokens. Memory is bounded by the size of a shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.dedup import is_held_out, read_duplicates
from xlmtrain.prepare.output import link
from xlmtrain.prepare.token_shards import (
    read_digests,
    read_numbers,
    read_words,
    write_tokenized,
    write_word_counts,
)
from xlmtrain.text.tokenizer import LINE_END


def select(
    store: ArtifactStore,
    out: Path,
    tokens: str,
    languages: list[str],
    is_train: bool,
    held_out: str | None,
    duplicates: str | None,
    drop_identical: bool,
) -> dict[str, Any]:
    """Leave out the sentences of a tokenized shard that are known from elsewhere, and count the words of training text.

    Sentences without words, which end documents, stay, but of several in a row only the first.
    ``tokens``, ``held_out``, ``duplicates``: keys of artifacts. ``drop_identical``: drop pairs of equal sides.
    """
    source = store.path("tokenize", tokens)
    digests = [read_digests(source, language) for language in languages]
    text = [np.concatenate([np.empty(0, np.int32), *read_numbers(source, language, 1 << 20)]) for language in languages]
    borders = np.diff(np.flatnonzero(text[0] == LINE_END), prepend=-1) == 1
    known = np.zeros(len(borders), bool)
    dropped = {}
    for reason, found in _known_sentences(store, tokens, languages, digests, held_out, duplicates, drop_identical):
        dropped[reason] = int(np.count_nonzero(found & ~known & ~borders))
        known |= found & ~borders
    left = np.flatnonzero(~known)
    known[left[1:][borders[left[1:]] & borders[left[:-1]]]] = True
    words, counted, characters = [], [], set[str]()
    for language, numbers in zip(languages, text):
        distinct = read_words(source, language)
        lengths = np.diff(np.flatnonzero(numbers == LINE_END), prepend=-1)
        if known.any():
            numbers = numbers[np.repeat(~known, lengths)]
            written = write_tokenized(out, language, distinct, numbers)
        else:
            for kind in ("words", "numbers"):
                link(source / f"{language}.{kind}.zst", out / f"{language}.{kind}.zst")
            written = list(range(1, len(distinct)))
        words.append(int(np.count_nonzero(numbers != LINE_END)))
        if is_train:
            sampled = np.fromfile(source / f"{language}.sampled", bool)[~known]
            counts = np.bincount(numbers[np.repeat(sampled, lengths[~known])], minlength=len(distinct))[written]
            write_word_counts(out, language, counts)
            counted.append(int(counts.sum()))
            characters.update(*(distinct[number] for number in written))
    return {
        "sentences": int(np.count_nonzero(~known & ~borders)),
        "words": words,
        "dropped": dropped,
        "counted": counted,
        "characters": "".join(sorted(characters)),
    }


def _known_sentences(
    store: ArtifactStore,
    tokens: str,
    languages: list[str],
    digests: list[np.ndarray],
    held_out: str | None,
    duplicates: str | None,
    drop_identical: bool,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield reasons for dropping sentences, and which they apply to, (sentences,) bool."""
    if held_out:
        found = [is_held_out(store.path("held_out", held_out), *side) for side in zip(languages, digests)]
        yield "decontaminate", np.logical_or.reduce(found)
    if duplicates:
        repeated = np.zeros(len(digests[0]), bool)
        repeated[read_duplicates(store.path("duplicates", duplicates), tokens)] = True
        yield "drop_duplicates", repeated
    if drop_identical and len(digests) > 1:
        yield "drop_identical", digests[0] == digests[1]
