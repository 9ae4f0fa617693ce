"""Merge the word counts of many shards and languages with bounded memory.

A file holds ``word count`` lines sorted by the word's code points, compressed with Zstandard. Sums are exact; the list
of words may be truncated to the most frequent ones (:func:`truncate_counts`).
"""

from __future__ import annotations

import heapq
import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from xlmtrain.text.text_files import open_bytes, open_zstd_writer

IN_MEMORY = 1 << 18
"""Distinct words that are summed in memory before they are written to disk."""

WordCount = tuple[str, int]


def write_counts(path: Path, counts: Iterable[WordCount]) -> None:
    """Write sorted counts."""
    lines = (f"{word} {count}\n" for word, count in counts)
    with open_zstd_writer(path) as file:
        while batch := "".join(itertools.islice(lines, 4096)):
            file.write(batch.encode())


def read_counts(path: Path) -> Iterator[WordCount]:
    """Yield the counts of a file."""
    with open_bytes(path) as file:
        for line in file:
            word, _, count = line.decode().rpartition(" ")
            yield word, int(count)


def merge_counts(sources: Iterable[Iterable[WordCount]], scratch: Path) -> Iterator[WordCount]:
    """Return the sums of ``sources``, sorted. Partial sums of :data:`IN_MEMORY` words go to ``scratch``."""
    runs: list[Path] = []
    counts: Counter[str] = Counter()
    for source in sources:
        for word, count in source:
            counts[word] += count
        if len(counts) >= IN_MEMORY:
            runs.append(scratch / f"run-{len(runs)}.zst")
            write_counts(runs[-1], sorted(counts.items()))
            counts = Counter()
    return sum_sorted([*map(read_counts, runs), sorted(counts.items())])


def sum_sorted(sources: Sequence[Iterable[WordCount]]) -> Iterator[WordCount]:
    """Merge several sorted counts."""
    merged = itertools.groupby(heapq.merge(*sources), key=operator.itemgetter(0))
    return ((word, sum(count for _, count in group)) for word, group in merged)


def sample_rates(sizes: Mapping[str, int], sample: int, alpha: float) -> dict[str, float]:
    """Return the fraction of each language's text to sample so that a language of size n has a share of n^alpha.

    ``sizes`` and ``sample``, the size of the sample, are both in sentences or bytes; ``sample`` 0 takes all text.
    """
    if not sample or sum(sizes.values()) <= sample:
        return dict.fromkeys(sizes, 1.0)
    weights = {language: size**alpha for language, size in sizes.items() if size}
    per_weight = sample / sum(weights.values())
    rates = {language: min(per_weight * weight / sizes[language], 1.0) for language, weight in weights.items()}
    return {**dict.fromkeys(sizes, 1.0), **rates}


def balance_factors(counted: Mapping[str, int], rates: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Return the factor for the word counts of each language that gives it a share of n^alpha for n running words.

    ``counted``: running words in the sample; ``rates``: fraction of the text that was sampled. Conneau & Lample 2019,
    section 3.1, use alpha 0.5. No factor is below 1, which would round the counts of rare words to 0.
    """
    sizes = {language: count / rates[language] for language, count in counted.items() if count}
    largest = max(sizes.values(), default=0)
    factors = {language: (largest / size) ** (1 - alpha) / rates[language] for language, size in sizes.items()}
    least = min(factors.values(), default=1.0)
    return {language: factor / least for language, factor in factors.items()}


def scaled(counts: Iterable[WordCount], factor: float) -> Iterator[WordCount]:
    """Multiply every count by ``factor`` and round it."""
    return ((word, round(count * factor)) for word, count in counts)


def truncate_counts(counts: Iterable[WordCount], words: int, scratch: Path) -> tuple[Path, int, int]:
    """Write to ``scratch`` the words with at least the smallest count that leaves no more than ``words``.

    Returns the file, its number of words, and that count. (More than ``words`` are left if all have the same count.)
    """
    everything, kept = scratch / "all.zst", scratch / "kept.zst"
    write_counts(everything, counts)
    histogram = Counter(count for _, count in read_counts(everything))
    left, least = histogram.total(), 1
    while left > words and left > histogram[least]:
        left -= histogram[least]
        least += 1
    if least == 1:
        return everything, left, least
    write_counts(kept, ((word, count) for word, count in read_counts(everything) if count >= least))
    return kept, left, least
