"""Prepared data and training batches as text, for people to read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest

import numpy as np

from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.data.spans import count_words
from xlmtrain.runtime.rng import generator
from xlmtrain.text.vocab import Vocab

_SAMPLE_TOKENS = 1 << 22
_CHUNK_SENTENCES = 1 << 22
_LENGTH_BINS = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)
"""Lower bounds of the histogram's bins, in tokens without EOS; a bin for empty sentences comes first."""
_BAR_WIDTH = 50


def describe_batch(batch: Batch, vocab: Vocab, languages: Sequence[str], count: int) -> Iterator[str]:
    """Yield the batch's sizes, then its first ``count`` sequences: text as the model reads it, and token by token.

    A token is shown as ``word language:position``, or ``input(target) language:position`` where it is predicted.
    """
    sequences, length = batch.tokens.shape
    padding = 1 - batch.nonpad_tokens / batch.padded_tokens
    yield (
        f"== {batch.name}: {sequences} rows x {length} tokens, {len(batch.targets)} to predict, {padding:.1%} padding"
    )
    targets = dict(zip(batch.target_index.tolist(), batch.targets.tolist()))
    for row in range(min(count, sequences)):
        used = length if batch.lengths is None else int(batch.lengths[row])
        arrays = (batch.tokens, batch.languages, batch.positions)
        tokens, ids, positions = (array[row, :used].tolist() for array in arrays)
        yield f"-- row {row}, {used} tokens: {vocab.decode(tokens).replace(vocab.tokens[vocab.special.mask], '<mask>')}"
        shown = []
        for place, (token, language, position) in enumerate(zip(tokens, ids, positions), row * length):
            word = "<mask>" if token == vocab.special.mask else vocab.token(token)
            target = f"({vocab.token(targets[place])})" if place in targets else ""
            shown.append(f"{word}{target} {languages[language]}:{position}")
        yield "   " + " | ".join(shown)


def corpus_sizes(dataset: Dataset) -> list[Sequence[str]]:
    """Return the rows of a table of the corpora's sizes, header first."""
    rows: list[Sequence[str]] = [("corpus", "sentences", "tokens", "MB", "shards", "mean", "files")]
    for name, corpus in dataset.header.corpora.items():
        megabytes = f"{(corpus.ids.bytes + corpus.offsets.bytes) / 1e6:,.1f}"
        mean = f"{(corpus.tokens - corpus.sentences) / max(corpus.sentences, 1):.1f}"
        counts = (corpus.sentences, corpus.tokens, len(corpus.shards) or 1, len(corpus.sources))
        sentences, tokens, shards, files = (f"{count:,}" for count in counts)
        rows.append((name, sentences, tokens, megabytes, shards, mean, files))
    return rows


def describe_corpora(
    dataset: Dataset, unknown: Mapping[str, Sequence[tuple[str, int]]], sentences: int, words: int, width: int
) -> Iterator[str]:
    """Yield, for each corpus, sample sentences, a histogram of lengths, and the most frequent words.

    ``unknown``: corpus -> its unknown words with their counts, most frequent first. ``sentences``, ``words``: how many
    to show. ``width``: columns of the terminal. The sides of a pair are shown side by side.
    """
    groups: dict[str, list[str]] = {}
    for name in dataset.header.corpora:
        split, key, *_ = name.split(".")
        groups.setdefault(f"{split}.{key}", []).append(name)
    for sides in groups.values():
        corpora = [dataset.corpus(name) for name in sides]
        yield ""
        yield f"== {' | '.join(sides)}"
        yield from _sample_sentences(dataset.vocab, corpora, sentences, width)
        for corpus in corpora:
            yield from _length_histogram(corpus)
            counts = count_words(corpus, dataset.vocab, _SAMPLE_TOKENS)
            yield from _word_list(f"most frequent of {counts.total():,} words", counts.most_common(words))
            if corpus.name in unknown:
                yield from _word_list("most frequent unknown words", unknown[corpus.name][:words])


def _sample_sentences(vocab: Vocab, corpora: list[Corpus], count: int, width: int) -> Iterator[str]:
    """Yield random sentences, the same at every call."""
    total = min(map(len, corpora))
    chosen = generator(0, "inspect", corpora[0].name).choice(total, size=min(count, total), replace=False)
    column = max((width - 10) // len(corpora) - 3, 20)
    for index in sorted(chosen.tolist()):
        sides = [textwrap.wrap(vocab.decode(c.sentence(index)[:-1].tolist()), column) for c in corpora]
        for line, cells in enumerate(zip_longest(*sides, fillvalue="")):
            text = " | ".join(cell.ljust(column) for cell in cells)
            yield f"{index if line == 0 else '':>9} {text}".rstrip()


def _length_histogram(corpus: Corpus) -> Iterator[str]:
    counts = np.zeros(len(_LENGTH_BINS) + 1, np.int64)
    for start in range(0, len(corpus), _CHUNK_SENTENCES):
        lengths = np.diff(corpus.offsets[start : start + _CHUNK_SENTENCES + 1]) - 1
        counts += np.bincount(np.searchsorted(_LENGTH_BINS, lengths, side="right"), minlength=len(counts))
    yield f"sentences of {corpus.name} by their tokens:"
    bins = [f"{first}-{after - 1}" if after > first + 1 else str(first) for first, after in pairwise(_LENGTH_BINS)]
    for name, count in zip(["0", *bins, f"{_LENGTH_BINS[-1]}-"], counts.tolist()):
        if count:
            share = count / len(corpus)
            yield f"{name:>9} {count:>12,} {share:>6.1%} {'#' * round(_BAR_WIDTH * share)}".rstrip()


def _word_list(title: str, words: Sequence[tuple[str, int]]) -> list[str]:
    text = " | ".join(f"{word} {count:,}" for word, count in words) or "none"
    return textwrap.wrap(f"{title}: {text}", 120, subsequent_indent="    ", break_long_words=False)
