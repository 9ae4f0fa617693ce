"""Stages over all training shards: BPE codes, the subwords that they can produce, the vocabulary."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.errors import DataError
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.tokenizer_artifact import stored_vocab
from xlmtrain.prepare.word_counts import balance_factors, read_counts, scaled, sum_sorted, truncate_counts
from xlmtrain.prepare.words_stage import COUNTS
from xlmtrain.runtime.progress import ProgressBar
from xlmtrain.text.bpe import reachable_subwords, read_codes, write_codes
from xlmtrain.text.bpe_trainer import learn_bpe
from xlmtrain.text.vocab import SPECIALS, Vocab


def learn_codes(
    store: ArtifactStore,
    out: Path,
    words: dict[str, str],
    rates: dict[str, float],
    merges: int,
    sampling_alpha: float,
    max_word_types: int,
) -> dict[str, Any]:
    """Learn ``codes`` from the word counts ``words``, an artifact for each language.

    ``rates``: fraction of each language's text that was counted. Returns the number of codes, the number of words they
    were learned from, and the smallest count of such a word.
    """
    scratch = out / "scratch"
    scratch.mkdir()
    counted = {language: store.result("words", key)["words"] for language, key in words.items()}
    sources = [
        scaled(read_counts(store.path("words", words[language]) / COUNTS), factor)
        for language, factor in balance_factors(counted, rates, sampling_alpha).items()
    ]
    path, types, least = truncate_counts(sum_sorted(sources), max_word_types, scratch)
    with ProgressBar("learn codes", merges, " codes") as progress:
        codes = learn_bpe(read_counts(path), merges, lambda learned: progress.update(1))
    if not types:
        raise DataError("bpe.train_sample: no word was drawn to learn codes from; take more, or 0 for all text")
    if not codes:
        raise DataError("train: every word is a single character: BPE has nothing to learn; is this text?")
    write_codes(codes, out / "codes")
    shutil.rmtree(scratch)
    return {"codes": len(codes), "words": types, "least": least}


def copy_codes(store: ArtifactStore, out: Path, path: str, sha256: str) -> dict[str, Any]:
    """Write the given ``codes`` in fastBPE's format. ``sha256`` only makes the key follow the content."""
    write_codes(read_codes(path), out / "codes")
    return {}


def list_subwords(store: ArtifactStore, out: Path, tokens: list[str], codes: str) -> dict[str, Any]:
    """Write ``subwords``, a vocabulary: all that the codes can produce from the characters in the shards ``tokens``."""
    characters: set[str] = set()
    for key in tokens:
        characters.update(store.result("select", key)["characters"])
    subwords = reachable_subwords(read_codes(store.path("codes", codes) / "codes"), characters) - set(SPECIALS)
    Vocab((word, 0) for word in sorted(subwords)).write(out / "subwords")
    return {}


def copy_subwords(store: ArtifactStore, out: Path, path: str, sha256: str) -> dict[str, Any]:
    """Copy the given vocabulary to ``subwords``, in full."""
    Vocab.read(path).write(out / "subwords")
    return {}


def count_vocab(
    store: ArtifactStore, out: Path, encoded: list[str], subwords: str, max_size: int, min_count: int
) -> dict[str, Any]:
    """Write ``vocab``, the subwords that occur in the shards ``encoded``."""
    words = Vocab.read(store.path("subwords", subwords) / "subwords").tokens
    counts = np.zeros(len(words), np.int64)
    for key in encoded:
        counts += np.fromfile(store.path("encode", key) / "counts", np.int64)
    occurring = {word: count for word, count in zip(words, counts.tolist()) if count}
    Vocab.from_counts(occurring, max_size, min_count).write(out / "vocab")
    return {}


def count_tokens(store: ArtifactStore, out: Path, encoded: list[str], tokenizer: str) -> dict[str, Any]:
    """Write how often the entries of a tokenizer occur in the shards ``encoded``; special ones count 0."""
    vocab = stored_vocab(store, tokenizer)
    counts = np.zeros(len(vocab), np.int64)
    for key in encoded:
        counts += np.fromfile(store.path("encode", key) / "counts", np.int64)
    vocab.with_counts(np.where(vocab.is_special, 0, counts)).write_to(out)
    return {}


def truncate_vocab(store: ArtifactStore, out: Path, subwords: str, max_size: int, min_count: int) -> dict[str, Any]:
    """Write ``vocab``, the given vocabulary ``subwords`` within its limits."""
    Vocab.read(store.path("subwords", subwords) / "subwords", max_size, min_count).write(out / "vocab")
    return {}
