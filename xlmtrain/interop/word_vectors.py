"""Word vectors in word2vec's text format, read and written, and token embeddings for TensorBoard's projector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.text.text_files import read_lines
from xlmtrain.text.vocab import Vocab

TABLE = "encoder.token_embeddings.weight"
COUNTED_TOKENS = 1 << 26
"""Tokens of each corpus that are counted to find the language of a word."""
PROJECTED_WORDS = 10_000
"""Number of words written for the projector, which cannot show many more."""
MIN_SHARE = 0.9
"""A word is assigned to a language that has at least this share of its relative frequency."""


def read_vectors(path: Path, vocab: Vocab, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of words in the vocabulary: ids (n,) int64, vectors (n, dim) float32.

    A line is ``word v1 .. v_dim``; the first may be ``words dim``. A subword that does not end a word is written
    ``piece@@``. The first vector of a repeated word counts. Raises DataError with file and line for malformed lines,
    ConfigError for vectors of another size, or if no word is in the vocabulary.
    """
    found: dict[int, np.ndarray] = {}
    for number, word, values in _lines(path):
        if len(values) > dim and _vector(values[-dim - 1 : -dim]) is None:
            continue  # a word with a blank in it, which no vocabulary has
        if len(values) != dim:
            raise ConfigError(f"{path}:{number}: a vector of {len(values)} numbers, model.dim is {dim}")
        index = vocab.id(word)
        if index < 0 or vocab.is_special[index] or index in found:
            continue
        vector = _vector(values)
        if vector is None:
            raise DataError(f"{path}:{number}: not a word and {dim} numbers")
        if not np.isfinite(vector).all():
            raise DataError(f"{path}:{number}: a number is not finite, or beyond float32")
        found[index] = vector
    if not found:
        raise ConfigError(f"{path}: none of its words is in the vocabulary; upper and lower case must be the same")
    return np.array(list(found), dtype=np.int64), np.stack(list(found.values()))


def _lines(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line number, word, numbers), without the header."""
    for number, line in read_lines(path, "word vectors"):
        word, *values = line.rstrip().split(" ")
        if word and not (number == 1 and len(values) == 1 and values[0].isdigit()):
            yield number, word, values


def _vector(values: Sequence[str]) -> np.ndarray | None:
    """Return float32 numbers, infinite where they are too large; None if one is not a number."""
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float32)
    except ValueError:
        return None


def write_vectors(bundle: PretrainedBundle, path: Path) -> None:
    """Write the token embeddings in word2vec's text format, without the special symbols."""
    vocab, words = bundle.vocab, np.flatnonzero(~bundle.vocab.is_special)
    table = bundle.weights[TABLE].numpy()[words]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{len(table)} {table.shape[1]}\n")
        for word, vector in zip(map(vocab.token, words.tolist()), table):
            # Nine digits restore a float32 exactly.
            file.write(f"{word} {' '.join(f'{value:.9g}' for value in vector.tolist())}\n")


def write_projector(bundle: PretrainedBundle, dataset: Dataset, directory: Path) -> None:
    """Write the most frequent word-final subwords with their languages and counts, for ``tensorboard --logdir``.

    The language is the one in whose training text of ``dataset`` the word mostly occurs, ``both`` if there is none.
    Raises DataError if the data has another vocabulary or other languages than the model.
    """
    if dataset.vocab.fingerprint != bundle.vocab.fingerprint or dataset.languages != bundle.languages:
        raise DataError(f"data={dataset.path}: has another vocabulary or other languages than the model")
    shares = language_shares(dataset)
    languages = np.where(shares.max(axis=0) >= MIN_SHARE, np.array(dataset.languages)[shares.argmax(axis=0)], "both")
    vocab, counts = bundle.vocab, bundle.vocab.counts
    chosen = sorted(np.flatnonzero(vocab.is_word).tolist(), key=lambda i: -counts[i])[:PROJECTED_WORDS]
    with SummaryWriter(str(directory)) as writer:
        writer.add_embedding(
            bundle.weights[TABLE][chosen],
            metadata=[[vocab.token(i), str(languages[i]), str(counts[i])] for i in chosen],
            metadata_header=["word", "language", "count"],
            tag="words",
            global_step=bundle.provenance.step,
        )


def language_shares(dataset: Dataset) -> np.ndarray:
    """Return each vocabulary entry's share of use per language, (languages, vocabulary) float64; columns sum to 1.

    Shares are of relative frequencies, so the sizes of the corpora do not matter. Columns of unused entries are 0.
    """
    counts = np.zeros((len(dataset.languages), len(dataset.vocab)))
    for name in dataset.header.corpora:
        split, *_, language = name.split(".")
        if split == "train":
            ids = dataset.corpus(name).ids[:COUNTED_TOKENS]
            counts[dataset.language_id(language)] += np.bincount(ids, minlength=len(dataset.vocab))
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return rates / np.maximum(rates.sum(axis=0), np.finfo(float).tiny)
