"""What is so unlikely in good data that somebody should look before training on it, as far as the data shows it.

Preparation says the same of the raw text (:mod:`xlmtrain.prepare.quality`), but data may come from elsewhere, and be
trained on by somebody who did not prepare it. Some of each corpus is read, so it takes no longer for a large one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from xlmtrain.config.schema import ModelConfig
from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.data.spans import WordCounter, sample_spans, span_ids
from xlmtrain.errors import DataError
from xlmtrain.prepare.quality import unk_warnings, vocab_warnings
from xlmtrain.prepare.statistics import STATISTICS, Statistics
from xlmtrain.text.alignment_check import lines_shifted, shifted
from xlmtrain.text.langid import MARKERS, detected_language
from xlmtrain.text.vocab import UNK, Vocab

LARGEST_VOCAB = 1_000_000
MOST_EMBEDDINGS = 0.95
_TOKENS = 1 << 20


def check_vocabulary(size: int, model: ModelConfig) -> None:
    """Raise DataError for a vocabulary that no model should be made for; a text without BPE has one of millions."""
    if size > LARGEST_VOCAB:
        raise DataError(
            f"the data has a vocabulary of {size:,}: the embeddings alone would have {size * model.dim / 1e6:,.0f} "
            "million parameters; was BPE forgotten? Prepare the data again, with fewer bpe.merges or vocab.max_size; "
            f"up to {LARGEST_VOCAB:,} entries are taken"
        )


def quality_warnings(dataset: Dataset, model: ModelConfig | None = None) -> Iterator[str]:
    """What somebody should look at, in a sentence each; ``model``: what is to be trained, if that is known."""
    words = WordCounter(dataset.vocab)
    yield from vocab_warnings(len(dataset.vocab), words.parts)
    if model is not None:
        yield from _model_doubts(len(dataset.vocab), model)
    markers = _marker_ids(dataset.vocab)
    pairs = set()
    for name in dataset.header.corpora:
        corpus = dataset.corpus(name)
        yield from _corpus_doubts(corpus, words, markers)
        if name.count(".") == 2:
            pairs.add(tuple(name.split(".")[:2]))
    for split, pair in sorted(pairs):
        yield from _pair_doubts(*dataset.pair(split, pair))
    yield from _told(dataset)


def _model_doubts(size: int, model: ModelConfig) -> Iterator[str]:
    embeddings = size * model.dim
    blocks = 12 * model.dim**2 * model.layers
    if embeddings > MOST_EMBEDDINGS * (embeddings + blocks):
        yield (
            f"{embeddings / (embeddings + blocks):.0%} of the model's {(embeddings + blocks) / 1e6:,.0f} million "
            f"parameters are the embeddings of the vocabulary's {size:,} entries; a larger model, or fewer bpe.merges?"
        )


def _corpus_doubts(corpus: Corpus, words: WordCounter, markers: dict[str, np.ndarray]) -> Iterator[str]:
    language = corpus.name.rpartition(".")[2]
    tokens = unknown = looked_at = 0
    strange: Counter[str] = Counter()
    for sentences in sample_spans(corpus, _TOKENS):
        ids = span_ids(corpus, sentences)
        tokens += len(ids) - len(sentences)
        unknown += int(np.count_nonzero(ids == UNK))
        if len(ids):
            whole = ids[words.whole(ids)]
            counts = {other: int(np.isin(whole, wanted).sum()) for other, wanted in markers.items()}
            looked_at += 1
            if other := detected_language(language, counts):
                strange[other] += 1
    yield from unk_warnings(corpus.name, unknown / max(tokens, 1))
    for other, times in strange.items():
        where = "it" if looked_at == 1 else f"{times} of {looked_at} stretches of it"
        yield f"{corpus.name}: {where} reads like {other}, not {language}; were files swapped?"


def _pair_doubts(one: Corpus, other: Corpus) -> Iterator[str]:
    for sentences in sample_spans(one, _TOKENS):
        sides = [np.diff(side.offsets[sentences.start : sentences.stop + 1]) for side in (one, other)]
        if found := shifted(sides[0], sides[1]):
            index, shift = found
            yield (
                f"{one.name}: from about sentence {sentences.start + index:,} on, {lines_shifted(shift)} {other.name}; "
                "are the pairs misaligned?"
            )
            return


def _told(dataset: Dataset) -> Iterator[str]:
    """What preparation said of text that is not in the data any more, or cannot be seen in it."""
    try:
        statistics = Statistics.read(dataset.path / STATISTICS)
    except DataError as error:
        yield str(error)
        return
    if statistics is not None:
        yield from statistics.raw_doubts()


def _marker_ids(vocab: Vocab) -> dict[str, np.ndarray]:
    """Language -> the ids of its commonest words, as far as they are entries of the vocabulary."""
    found = {language: [vocab.id(word) for word in words] for language, words in MARKERS.items()}
    return {language: np.array([id for id in ids if id != UNK]) for language, ids in found.items()}
