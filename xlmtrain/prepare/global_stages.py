"""What is made from all training shards at once: codes, the subwords these can make, the vocabulary."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.token_shards import read_word_counts
from xlmtrain.runtime.progress import ProgressBar
from xlmtrain.text.bpe import reachable_subwords, read_codes, write_codes
from xlmtrain.text.bpe_trainer import learn_bpe
from xlmtrain.text.vocab import SPECIALS, Vocab
from xlmtrain.text.word_counts import balance_factors, merge_counts, read_counts, scaled, sum_sorted, truncate_counts


def learn_codes(
    work: ArtifactStore,
    out: Path,
    tokens: list[list[Any]],
    rates: dict[str, float],
    merges: int,
    sampling_alpha: float,
    max_word_types: int,
) -> dict[str, Any]:
    """Write ``codes``, learned from the counts of the shards ``tokens``: part, and languages of each.

    ``rates``: what share of each language's text was counted. Returns the number of codes, of words they were learned
    from, and the smallest count of such a word.
    """
    scratch = out / "scratch"
    scratch.mkdir()
    counted = dict.fromkeys(rates, 0)
    parts: dict[str, list[Path]] = {language: [] for language in rates}
    for part, languages in tokens:
        for language, words in zip(languages, work.load("tokenize", part)["counted"]):
            counted[language] += words
            parts[language].append(work.part("tokenize", part))
    sources = []
    for language, factor in balance_factors(counted, rates, sampling_alpha).items():
        (scratch / language).mkdir()
        counts = (read_word_counts(part, language) for part in parts[language])
        sources.append(scaled(merge_counts(counts, scratch / language), factor))
    path, words, least = truncate_counts(sum_sorted(sources), max_word_types, scratch)
    with ProgressBar("learn codes", merges, " codes") as progress:
        codes = learn_bpe(read_counts(path), merges, lambda learned: progress.update(1))
    write_codes(codes, out / "codes")
    shutil.rmtree(scratch)
    return {"codes": len(codes), "words": words, "least": least}


def copy_codes(work: ArtifactStore, out: Path, path: str, sha256: str) -> dict[str, Any]:
    """Write ``codes`` as they are given."""
    shutil.copyfile(path, out / "codes")
    return {}


def list_subwords(work: ArtifactStore, out: Path, tokens: list[str], codes: str) -> dict[str, Any]:
    """Write ``subwords``: all that the codes can make of the characters in the shards ``tokens``, as a vocabulary."""
    characters: set[str] = set()
    for part in tokens:
        characters.update(work.load("tokenize", part)["characters"])
    subwords = reachable_subwords(read_codes(work.part("codes", codes) / "codes"), characters) - set(SPECIALS)
    Vocab((word, 0) for word in sorted(subwords)).write(out / "subwords")
    return {}


def take_subwords(work: ArtifactStore, out: Path, path: str, sha256: str) -> dict[str, Any]:
    """Write ``subwords``: those of the given vocabulary."""
    Vocab.read(path).write(out / "subwords")
    return {}


def count_vocab(
    work: ArtifactStore, out: Path, encoded: list[str], subwords: str, max_size: int, min_count: int
) -> dict[str, Any]:
    """Write ``vocab``: the subwords that occur in the shards ``encoded``."""
    words = Vocab.read(work.part("subwords", subwords) / "subwords").words
    counts = np.zeros(len(words), np.int64)
    for part in encoded:
        counts += np.fromfile(work.part("encode", part) / "counts", np.int64)
    occurring = {word: count for word, count in zip(words, counts.tolist()) if count}
    Vocab.from_counts(occurring, max_size, min_count).write(out / "vocab")
    return {}


def truncate_vocab(work: ArtifactStore, out: Path, subwords: str, max_size: int, min_count: int) -> dict[str, Any]:
    """Write ``vocab``: the given vocabulary, ``subwords``, within its limits."""
    Vocab.read(work.part("subwords", subwords) / "subwords", max_size, min_count).write(out / "vocab")
    return {}
