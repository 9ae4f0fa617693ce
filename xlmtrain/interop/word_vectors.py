"""Word vectors in the word2vec text format, in and out, and the token embeddings in TensorBoard's projector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.text.vocab import CONTINUATION, SPECIALS, Vocab

TABLE = "encoder.token_embeddings.weight"
COUNTED_TOKENS = 1 << 26
"""How much of each corpus is read to tell the words' languages."""
PROJECTED_WORDS = 10_000
"""More than the projector can show is of no use."""
OWN_SHARE = 0.9
"""A word is a language's own if this share of its relative frequencies is there."""


def read_vectors(path: Path, vocab: Vocab, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of the words that the vocabulary has: ids (n,) int64, and vectors (n, dim) float32.

    A line is ``word v1 .. v_dim``, the first may be ``words dim``; a piece that does not end a word is met only as
    ``piece@@``, and a word that comes twice keeps its first vector. Raises DataError with file and line for what is not
    that, ConfigError for vectors of another size, or of no word of the vocabulary.
    """
    found: dict[int, np.ndarray] = {}
    for number, word, rest in _lines(path):
        size = rest.count(" ") + 1 if rest else 0
        if size > dim and not _is_number(rest.split(" ")[-dim - 1]):
            continue  # a word with a blank in it, which is in no vocabulary
        if size != dim:
            raise ConfigError(f"{path}:{number}: a vector of {size} numbers, model.dim is {dim}")
        index = vocab.id(word)
        if index < len(SPECIALS) or index in found:
            continue
        try:
            with np.errstate(over="ignore"):  # too large becomes infinite
                vector = np.array(rest.split(" "), dtype=np.float32)
        except ValueError:
            raise DataError(f"{path}:{number}: not a word and {dim} numbers") from None
        if not np.isfinite(vector).all():
            raise DataError(f"{path}:{number}: a number is not finite, or beyond float32")
        found[index] = vector
    if not found:
        raise ConfigError(
            f"{path}: none of its words is in the vocabulary; words are compared as they are, in upper and lower case"
        )
    return np.array(list(found), dtype=np.int64), np.stack(list(found.values()))


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, word, what follows it) of each line, without the header."""
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                word, _, rest = line.decode().rstrip().partition(" ")
                if word and not (number == 1 and rest.isdigit()):
                    yield number, word, rest
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}:{number}: not UTF-8; expected lines of 'word number number ...'") from None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def write_vectors(model: PretrainedBundle, path: Path) -> None:
    """The token embeddings in word2vec's text format, special symbols left out, pieces of words as ``piece@@``."""
    table = model.weights[TABLE].numpy()[len(SPECIALS) :]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{len(table)} {table.shape[1]}\n")
        for word, vector in zip(model.vocab.words[len(SPECIALS) :], table):
            # Nine digits give every float32 back.
            file.write(f"{word} {' '.join(f'{value:.9g}' for value in vector.tolist())}\n")


def write_projector(model: PretrainedBundle, dataset: Dataset, directory: Path) -> None:
    """The most frequent words and last pieces of words for ``tensorboard --logdir``, with their languages and counts.

    The language is the one in whose training text of ``dataset`` the word is at home, ``both`` if in none.
    Raises DataError if the data is not of the model's vocabulary and languages.
    """
    if dataset.vocab.fingerprint != model.vocab.fingerprint or dataset.languages != model.languages:
        raise DataError(f"data={dataset.path}: has another vocabulary or other languages than the model")
    shares = language_shares(dataset)
    counts = model.vocab.counts
    whole = [i for i in range(len(SPECIALS), len(counts)) if not model.vocab.word(i).endswith(CONTINUATION)]
    chosen = sorted(whole, key=lambda i: -counts[i])[:PROJECTED_WORDS]
    homes = [_home(shares[:, i], dataset.languages) for i in chosen]
    with SummaryWriter(str(directory)) as writer:
        writer.add_embedding(
            model.weights[TABLE][chosen],
            metadata=[[model.vocab.word(i), home, str(counts[i])] for i, home in zip(chosen, homes)],
            metadata_header=["word", "language", "count"],
            tag="words",
            global_step=model.history.step,
        )


def language_shares(dataset: Dataset) -> np.ndarray:
    """How the occurrences of each vocabulary entry are shared over the languages, (languages, vocabulary) float64.

    Each language's training text counts as much as another's, whatever their sizes; columns of words that occur
    nowhere are 0.
    """
    counts = np.zeros((len(dataset.languages), len(dataset.vocab)))
    for name in dataset.header.corpora:
        split, *_, language = name.split(".")
        if split == "train":
            ids = dataset.corpus(name).ids[:COUNTED_TOKENS]
            counts[dataset.language_id(language)] += np.bincount(ids, minlength=len(dataset.vocab))
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return rates / np.maximum(rates.sum(axis=0), np.finfo(float).tiny)


def _home(shares: np.ndarray, languages: Sequence[str]) -> str:
    best = int(shares.argmax())
    return languages[best] if shares[best] >= OWN_SHARE else "both"
