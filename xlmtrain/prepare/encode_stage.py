"""Stages ``encode`` and ``assemble``: tokens of a shard -> subword numbers, and these -> ids of a corpus.

Every shard is encoded before the vocabulary is known, with a provisional vocabulary of all subwords that the codes can
produce. Assembling renumbers the subwords by the final vocabulary. Memory is bounded by the size of a shard.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xlmtrain.data.format import CorpusWriter, id_dtype
from xlmtrain.prepare.artifacts import ArtifactStore
from xlmtrain.prepare.token_shards import read_numbers, read_words
from xlmtrain.prepare.tokenizer_artifact import stored_vocab
from xlmtrain.text.bpe import Bpe
from xlmtrain.text.tokenizer import LINE_END, gather
from xlmtrain.text.tokenizer_json import TokenizerVocab
from xlmtrain.text.vocab import EOS, Vocab

CACHED_WORDS = 1 << 18
UNKNOWN_WORDS = 100
"""Most frequent words with unknown subwords that are reported per corpus."""

_UNKNOWN_COUNTED = 1 << 16
_SENTENCES_SEARCHED = 2000
_IDS_PER_BLOCK = 1 << 22
_NUMBERS_PER_BLOCK = 1 << 17
_LENGTH_DTYPE = np.dtype("<i4")


class Encoder(Protocol):
    """Words of a tokenized shard -> ids of ``size`` subwords."""

    size: int

    def rows(self, words: Sequence[str]) -> np.ndarray:
        """Return the rows of distinct words, the line end first: int64, (len(words),), valid until the next call."""

    def ids(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the concatenated ids of ``rows`` (n,), and where each row ends in them, (n,)."""


def encode(
    store: ArtifactStore, out: Path, tokens: str, languages: list[str], units: dict[str, str], count: bool
) -> dict[str, Any]:
    """Encode the shard ``tokens``: write ``{language}.ids``, provisional ids, and ``{language}.lengths`` of sentences.

    ``units``: keys of the artifacts ``codes`` and ``subwords``, the provisional vocabulary, or of ``tokenizer``. With
    ``count``, also writes ``counts``, (subwords,) int64.
    """
    encoder: Encoder
    if "tokenizer" in units:
        encoder = IdEncoder(stored_vocab(store, units["tokenizer"]))
    else:
        encoder = _encoder(*(store.path(stage, units[stage]) / stage for stage in ("codes", "subwords")))
    counts = np.zeros(encoder.size, np.int64)
    source = store.path("select", tokens)
    for language in languages:
        rows = encoder.rows(read_words(source, language))
        ends, before = [np.empty(0, np.int64)], 0
        with (out / f"{language}.ids").open("wb") as file:
            for numbers in read_numbers(source, language, _NUMBERS_PER_BLOCK):
                ids, row_ends = encoder.ids(rows[numbers])
                file.write(ids.tobytes())
                ends.append(before + row_ends[numbers == LINE_END])
                before += len(ids)
                if count:
                    counts += np.bincount(ids, minlength=encoder.size)
        np.diff(np.concatenate(ends), prepend=0).astype(_LENGTH_DTYPE).tofile(out / f"{language}.lengths")
    if count:
        counts.tofile(out / "counts")
    return {}


def assemble(
    store: ArtifactStore,
    out: Path,
    name: str,
    shards: list[list[str]],
    units: dict[str, str],
    vocab: str,
    sources: list[str],
    documents: bool,
) -> dict[str, Any]:
    """Concatenate the ``shards`` (encode key, select key, language) of a corpus, with ids of the final vocabulary.

    Writes ``{name}.ids`` and ``{name}.offsets``. Returns the corpus header, per shard the numbers of subwords and of
    unknown ones, and the most frequent words with an unknown subword, with counts. With a tokenizer, these are
    not known, and the numbers of words per shard are returned, too.
    """
    final: Vocab
    if is_tokenized := "tokenizer" in units:
        final = stored_vocab(store, units["tokenizer"])
        final_ids = np.arange(len(final), dtype=id_dtype(len(final)))
    else:
        provisional = _vocab(store.path("subwords", units["subwords"]) / "subwords")
        final = _vocab(store.path("vocab", vocab) / "vocab")
        final_ids = np.array([final.id(word) for word in provisional.tokens], id_dtype(len(final)))
    dtype, unk = final_ids.dtype, final.special.unk
    counted, unknown, unknown_words, words = [], [], Counter[str](), []
    with CorpusWriter(out, name, dtype, documents) as writer:
        for encoded, tokens, language in shards:
            path = store.path("encode", encoded) / f"{language}.ids"
            lengths = np.fromfile(path.with_suffix(".lengths"), _LENGTH_DTYPE).astype(np.int64)
            positions = [np.empty(0, np.int64)]
            begin = starts = 0
            for ids, sentence_lengths in _read_sentences(path, lengths, id_dtype(len(final_ids))):
                renumbered = final_ids[ids]
                writer.append(renumbered, sentence_lengths)
                positions.append(begin + np.flatnonzero(renumbered == unk))
                begin += len(renumbered)
                if is_tokenized:
                    starts += int(np.count_nonzero(final.begins_word(renumbered)))
            writer.end_shard()
            counted.append(begin - len(lengths))
            unknown.append(sum(map(len, positions)))
            words.append(starts - len(lengths))
            if is_tokenized:
                continue
            sentences = np.unique(np.searchsorted(np.cumsum(lengths), np.concatenate(positions), side="right"))
            bpe = _bpe(store.path("codes", units["codes"]) / "codes")
            unknown_words.update(_count_unknown(store.path("select", tokens), language, sentences, bpe, final))
            if len(unknown_words) > _UNKNOWN_COUNTED:
                unknown_words = Counter(dict(unknown_words.most_common(_UNKNOWN_COUNTED // 2)))
        header = writer.finish(sources)
    most = unknown_words.most_common(UNKNOWN_WORDS)
    found = {"header": asdict(header), "subwords": counted, "unknown": unknown, "unknown_words": most}
    return found | ({"words": words} if is_tokenized else {})


class IdEncoder(Encoder):
    """Ids, written as words, -> ids: each word is one, and the line end is the end of a sentence."""

    def __init__(self, vocab: TokenizerVocab) -> None:
        self.size, self._eos = len(vocab), vocab.special.eos

    def rows(self, words: Sequence[str]) -> np.ndarray:
        return np.array([self._eos, *map(int, words[1:])], np.int64)

    def ids(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows.astype(id_dtype(self.size)), np.arange(1, len(rows) + 1)


class BpeEncoder(Encoder):
    """Words -> subword ids, with a cache of words: the ids of row n are ``_ids[_ends[n] : _ends[n + 1]]``.

    Row 0 is the line end, encoded as EOS.
    """

    def __init__(self, codes: Path, vocab: Path) -> None:
        self._bpe = Bpe(codes)
        self._vocab = Vocab.read(vocab)
        self.size = len(self._vocab)
        self._set_rows(["\n"])
        self._ids = np.array([EOS], id_dtype(self.size))
        self._ends = np.array([0, 1])

    def rows(self, words: Sequence[str]) -> np.ndarray:
        if len(self._rows) > CACHED_WORDS:
            self._retain(words)
        rows = np.fromiter(map(self._rows.__getitem__, words), np.int64, len(words))
        subwords = self._bpe.segment_all(list(islice(self._rows, len(self._ends) - 1, None)))
        new = [self._vocab.encode(parts) for parts in subwords]
        lengths = np.fromiter(map(len, new), np.int64, len(new))
        self._ids = np.concatenate([self._ids, np.fromiter(chain.from_iterable(new), self._ids.dtype)])
        self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(lengths)])
        return rows

    def ids(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return gather(self._ids, self._ends, rows)

    def _set_rows(self, words: Sequence[str]) -> None:
        """Number ``words``, and each new word by the next row."""
        self._rows: defaultdict[str, int] = defaultdict(None, zip(words, range(len(words))))
        self._rows.default_factory = self._rows.__len__

    def _retain(self, words: Sequence[str]) -> None:
        kept = [word for word in words if word in self._rows]
        self._ids, ends = self.ids(np.array([self._rows[word] for word in kept]))
        self._ends = np.concatenate([[0], ends])
        self._set_rows(kept)


def _count_unknown(tokens: Path, language: str, sentences: np.ndarray, bpe: Bpe, vocab: Vocab) -> Counter[str]:
    """Count the words with an unknown subword in the given sentences (sorted indices) of a tokenized shard.

    At most ``_SENTENCES_SEARCHED`` are searched, which are all unless the vocabulary lacks much of the text.
    """
    if not len(sentences):
        return Counter()
    sentences = sentences[:: -(-len(sentences) // _SENTENCES_SEARCHED)]
    known, words, before = read_words(tokens, language), Counter[str](), 0
    for numbers in read_numbers(tokens, language, _NUMBERS_PER_BLOCK):
        sentence = before + np.cumsum(numbers == LINE_END)
        wanted = numbers[np.isin(sentence, sentences) & (numbers != LINE_END)]
        words.update(known[number] for number in wanted.tolist())
        before = int(sentence[-1])
    segmented = zip(words, bpe.segment_all(list(words)))
    return Counter({word: words[word] for word, subwords in segmented if vocab.special.unk in map(vocab.id, subwords)})


def _read_sentences(path: Path, lengths: np.ndarray, dtype: np.dtype[Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the ids in a file and the lengths of their sentences, some millions of ids at a time."""
    ends = np.cumsum(lengths)
    first = 0
    with path.open("rb") as file:
        while first < len(lengths):
            before = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, before + _IDS_PER_BLOCK)), first + 1)
            block = lengths[first:last]
            yield np.fromfile(file, dtype, int(block.sum())), block
            first = last


@lru_cache(maxsize=1)
def _bpe(codes: Path) -> Bpe:
    """Return the codes, loaded once per process."""
    return Bpe(codes)


@lru_cache(maxsize=1)
def _encoder(codes: Path, subwords: Path) -> BpeEncoder:
    """Return an encoder, kept for the next shards."""
    return BpeEncoder(codes, subwords)


@lru_cache(maxsize=2)  # provisional and final
def _vocab(path: Path) -> Vocab:
    """Return a vocabulary, read once per process."""
    return Vocab.read(path)
