"""Import of the original XLM's binarized data as a prepared data set with the same words, ids and sentences.

Files are ``{split}.{language}.pth`` and ``{split}.{pair}.{language}.pth``. If one is missing, its parts for several
GPUs, ``{...}.0.pth``, ``{...}.1.pth`` and so on, are concatenated.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xlmtrain.config.prepare import TextConfig
from xlmtrain.data.format import CorpusHeader, CorpusWriter, Header, corpus_name, id_dtype
from xlmtrain.errors import DataError
from xlmtrain.interop.run import write_vocab
from xlmtrain.interop.xlm.pth import dictionary_vocab, read_data_file
from xlmtrain.runtime.output_paths import new_directory
from xlmtrain.text.bpe import read_codes, write_codes
from xlmtrain.text.vocab import EOS, SPECIALS, UNK, Vocab

log = logging.getLogger(__name__)
CHUNK_SENTENCES = 1 << 16
_NAME = re.compile(r"(train|valid|test)\.(?:([A-Za-z_]+-[A-Za-z_]+)\.)?([A-Za-z_]+)(?:\.(\d{1,6}))?\.pth")


@dataclass(frozen=True)
class ImportedCorpus:
    """Sizes of an imported corpus. ``tokens`` includes EOS; ``unknown`` counts tokens that are UNK."""

    name: str
    sentences: int
    tokens: int
    unknown: int

    @property
    def unknown_rate(self) -> float:
        """Share of UNK among the subwords."""
        return self.unknown / max(self.tokens - self.sentences, 1)


def import_data(data: Path, output: Path, codes: Path | None, text: TextConfig) -> list[ImportedCorpus]:
    """Convert the files in ``data`` to the directory ``output``, which appears only when it is complete.

    ``codes`` (None if not available) and ``text``: BPE codes and text processing that the data was made with. They do
    not change the ids, but are needed for raw text later. Raises DataError for files that are missing, damaged, unsafe,
    or do not belong together.
    """
    files = _find(data)
    merges = read_codes(codes) if codes is not None else []
    first = next(iter(files.values()))[0]
    vocab = _read(first)[0]
    corpora: dict[str, CorpusHeader] = {}
    unknown: dict[str, int] = {}
    with new_directory(output) as directory:
        write_vocab(vocab, directory, str(first))
        if merges:
            write_codes(merges, directory / "codes")
        for name, paths in files.items():
            with CorpusWriter(directory, name, id_dtype(len(vocab))) as writer:
                unknown[name] = sum(_append(writer, path, vocab, first) for path in paths)
                corpora[name] = writer.finish([path.name for path in paths])
        for first_side, second_side in _pair_sides(files):
            counts = corpora[first_side].sentences, corpora[second_side].sentences
            if counts[0] != counts[1]:
                raise DataError(f"{data}: {first_side} has {counts[0]} sentences, {second_side} {counts[1]}")
        languages = sorted({name.rpartition(".")[2] for name in files})
        Header.of(directory, vocab, languages, asdict(text), corpora).write(directory)
    return [ImportedCorpus(name, c.sentences, c.tokens, unknown[name]) for name, c in corpora.items()]


def _append(writer: CorpusWriter, path: Path, vocab: Vocab, first: Path) -> int:
    """Append the sentences of a file and return its number of UNK; ``vocab`` is that of the file ``first``."""
    own_vocab, positions, ids = _read(path)
    if own_vocab.tokens != vocab.tokens:
        raise DataError(f"{path}: its dictionary is not the one of {first}; were they made together?")
    unknown = 0
    for chunk, lengths in _chunks(path, positions, ids, len(vocab)):
        writer.append(chunk, lengths)
        unknown += int(np.count_nonzero(chunk == UNK))
    return unknown


def _find(data: Path) -> dict[str, list[Path]]:
    """Return corpus name -> its file, or its parts in order."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(data.glob("*.pth")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            log.warning("%s: left out; data has names like train.de.pth and train.de-en.de.pth", path)
            continue
        split, pair, language, part = match.groups()
        if pair is not None and (pair.split("-") != sorted(set(pair.split("-"))) or language not in pair.split("-")):
            raise DataError(f"{path}: a pair is two languages in alphabetical order, like train.de-en.de.pth")
        found.setdefault(corpus_name(split, language, pair), {})[-1 if part is None else int(part)] = path
    files: dict[str, list[Path]] = {}
    for name, parts in sorted(found.items()):
        missing = [i for i in range(len(parts)) if i not in parts]
        if -1 not in parts and missing:
            raise DataError(f"{data / name}.{missing[0]}.pth: missing, but there is {parts[max(parts)].name}")
        files[name] = [parts[-1]] if -1 in parts else [parts[i] for i in range(len(parts))]
    if not any(name.startswith("train.") for name in files):
        raise DataError(f"{data}: no training data; expected a directory with files like train.de.pth")
    for first, second in _pair_sides(files):
        if second not in files or first not in files:
            raise DataError(f"{data / (second if first in files else first)}.pth: missing, the other side is there")
    return files


def _pair_sides(names: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the two corpora of every pair of which at least one is in ``names``."""
    for stem in sorted({name.rpartition(".")[0] for name in names if name.count(".") == 2}):
        first, second = stem.split(".")[1].split("-")
        yield f"{stem}.{first}", f"{stem}.{second}"


def _read(path: Path) -> tuple[Vocab, np.ndarray, np.ndarray]:
    """Return a file's vocabulary, and its ``positions`` and ``sentences``, as the original calls them."""
    content = read_data_file(path)
    try:
        dictionary = content["dico"]
        vocab = dictionary_vocab(dictionary["id2word"], dictionary["counts"])
        if dictionary["word2id"] != {word: i for i, word in enumerate(vocab.tokens)}:
            raise ValueError("the ids in its dictionary do not agree with its words")
        positions, ids = content["positions"], content["sentences"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not binarized data of the original XLM ({error} is missing)") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    if not isinstance(positions, np.ndarray) or positions.dtype != np.int64 or positions.shape[1:] != (2,):
        raise DataError(f"{path}: its positions are not two columns of int64")
    if not isinstance(ids, np.ndarray) or ids.dtype not in (np.uint16, np.int32) or ids.ndim != 1:
        raise DataError(f"{path}: its sentences are not a row of uint16 or int32")
    if not len(positions):
        raise DataError(f"{path}: no sentence in it")
    return vocab, positions, ids


def _chunks(path: Path, positions: np.ndarray, ids: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids and lengths, EOS included, of ``CHUNK_SENTENCES`` sentences at a time.

    A row of ``positions`` is (start, index of EOS). Raises DataError if there are gaps between sentences, or special
    symbols other than ``<unk>`` inside one.
    """
    start = 0
    for first in range(0, len(positions), CHUNK_SENTENCES):
        starts, ends = positions[first : first + CHUNK_SENTENCES].T
        where = f"{path}: sentences {first} to {first + len(starts) - 1}"
        inside = (ends >= 0) & (ends < len(ids))  # before any arithmetic with them
        if not inside.all() or starts[0] != start or (starts[1:] != ends[:-1] + 1).any() or (ends < starts).any():
            raise DataError(f"{where}: their positions are not one after the other within the {len(ids)} ids")
        chunk = ids[start : ends[-1] + 1]
        if chunk.min() < 0 or chunk.max() >= size:
            raise DataError(f"{where}: an id is outside the vocabulary of {size}")
        special = (chunk < len(SPECIALS)) & (chunk != UNK)
        if (chunk[ends - start] != EOS).any() or np.count_nonzero(special) != len(ends):
            raise DataError(f"{where}: one does not end with {SPECIALS[EOS]}, or a special symbol is inside one")
        yield chunk, ends - starts + 1
        start = int(ends[-1]) + 1
    if start != len(ids):
        raise DataError(f"{path}: {len(ids) - start} ids follow the last sentence")
