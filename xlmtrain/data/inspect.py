"""A prepared data set as text, to look at: what there is, how long sentences are, which words, what was left out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.data.spans import WordCounter, sample_spans, span_ids
from xlmtrain.metrics.table import format_table
from xlmtrain.prepare.statistics import STATISTICS, Statistics, listed
from xlmtrain.runtime.rng import generator

_TOKENS = 1 << 22
_AT_ONCE = 1 << 22
_LENGTHS = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)
"""Where the histogram's rows begin, in tokens without EOS; sentences of none come before."""

_BAR = 50


def survey(dataset: Dataset, rows: int, words: int, width: int) -> Iterator[str]:
    """The lines: the data set; for each language and pair ``rows`` sentences, a histogram, the ``words`` most frequent
    words; what was dropped. ``width``: columns of the terminal."""
    header = dataset.header
    yield f"== {dataset.path}: " + ", ".join(f"{name}={i}" for i, name in enumerate(dataset.languages))
    yield f"vocabulary {header.vocab_size:,}, ids {header.dtype}, fingerprint {dataset.fingerprint[:12]}"
    yield from format_table([_sizes(dataset, name) for name in header.corpora], _COLUMNS).splitlines()
    statistics = Statistics.read(dataset.path / STATISTICS)
    unknown = dict(statistics.unknown_words) if statistics is not None else {}
    for sides in _together(header.corpora):
        corpora = [dataset.corpus(name) for name in sides]
        yield ""
        yield f"== {' | '.join(sides)}"
        yield from _samples(dataset, corpora, rows, width)
        for corpus in corpora:
            yield from _lengths(corpus)
            yield from _words(dataset, corpus, words)
            if corpus.name in unknown:
                yield from _filled("most frequent unknown words", listed(unknown[corpus.name][:words]) or "none")
    yield ""
    if statistics is None:
        yield "What was dropped and which words are unknown is not known: the data was not made by tools/prepare.py."
    else:
        yield "== the raw text, with what was dropped and why"
        yield from statistics.table()
        yield from (f"note: {note}" for note in statistics.notes)


_COLUMNS = ("corpus", "sentences", "tokens", "MB", "shards", "mean", "files")


def _sizes(dataset: Dataset, name: str) -> Sequence[str]:
    corpus = dataset.header.corpora[name]
    size = (corpus.ids.bytes + corpus.offsets.bytes) / 1e6
    mean = (corpus.tokens - corpus.sentences) / max(corpus.sentences, 1)
    counts = f"{corpus.sentences:,}", f"{corpus.tokens:,}", f"{size:,.1f}", f"{len(corpus.shards) or 1:,}"
    return (name, *counts, f"{mean:.1f}", f"{len(corpus.sources):,}")


def _together(names: Iterable[str]) -> list[list[str]]:
    """The corpora, the sides of a pair together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] if name.count(".") == 2 else name, []).append(name)
    return list(groups.values())


def _samples(dataset: Dataset, corpora: list[Corpus], rows: int, width: int) -> Iterator[str]:
    """The same sentences at every call, from anywhere in the text; the sides of a pair beside each other."""
    count = min(map(len, corpora))
    chosen = generator(0, "survey", corpora[0].name).choice(count, size=min(rows, count), replace=False)
    column = max((width - 10) // len(corpora) - 3, 20)
    for index in sorted(chosen.tolist()):
        sides = [textwrap.wrap(dataset.vocab.decode(c.sentence(index)[:-1].tolist()), column) for c in corpora]
        for line in range(max(1, *map(len, sides))):
            cells = [(side[line] if line < len(side) else "").ljust(column) for side in sides]
            yield f"{index if line == 0 else '':>9} {' | '.join(cells)}".rstrip()


def _lengths(corpus: Corpus) -> Iterator[str]:
    """How many sentences there are of which length."""
    counts = np.zeros(len(_LENGTHS) + 1, np.int64)
    for start in range(0, len(corpus), _AT_ONCE):
        lengths = np.diff(corpus.offsets[start : start + _AT_ONCE + 1]) - 1
        counts += np.bincount(np.searchsorted(_LENGTHS, lengths, side="right"), minlength=len(counts))
    yield f"sentences of {corpus.name} by their tokens:"
    bounds = [f"{first}-{after - 1}" if after > first + 1 else str(first) for first, after in pairwise(_LENGTHS)]
    for name, count in zip(["0", *bounds, f"{_LENGTHS[-1]}-"], counts.tolist()):
        if count:
            share = count / len(corpus)
            yield f"{name:>9} {count:>12,} {share:>6.1%} {'#' * round(_BAR * share)}".rstrip()


def _words(dataset: Dataset, corpus: Corpus, count: int) -> Iterator[str]:
    words = WordCounter(dataset.vocab)
    for sentences in sample_spans(corpus, _TOKENS):
        words.count(span_ids(corpus, sentences))
    yield from _filled(f"most frequent of {words.total:,} words", listed(words.most_frequent(count)))


def _filled(title: str, text: str) -> list[str]:
    return textwrap.wrap(f"{title}: {text}", 120, subsequent_indent="    ", break_long_words=False)
