"""Warnings about text and prepared data that are unlikely to train a good model.

The statistics of preparation show some problems, the prepared ids others; data from elsewhere has no statistics. Only
spans of each corpus are read, so that large corpora take no longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from xlmtrain.config.model import ModelConfig
from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.data.spans import sample_spans, span_ids, whole_words
from xlmtrain.diagnostics.finding import Finding, error, warning
from xlmtrain.diagnostics.statistics_warnings import raw_text_warnings, swapped, unk_warnings, vocab_warnings
from xlmtrain.errors import DataError
from xlmtrain.evaluate.validator import Validator
from xlmtrain.prepare.statistics import STATISTICS, Statistics
from xlmtrain.text.alignment_check import lines_shifted, shifted
from xlmtrain.text.langid import MARKERS, detected_language
from xlmtrain.text.vocab import Vocab

LARGEST_VOCAB = 1_000_000  # trained with
_SAMPLE_TOKENS = 1 << 20


def check_vocabulary(size: int, model: ModelConfig) -> None:
    """Raise DataError for a vocabulary too large for any model; text without BPE has one of millions."""
    if size > LARGEST_VOCAB:
        raise DataError(
            f"the data has a vocabulary of {size:,}: the embeddings alone would have {size * model.dim / 1e6:,.0f} "
            "million parameters; was BPE forgotten? Prepare the data again, with fewer bpe.merges or vocab.max_size; "
            f"up to {LARGEST_VOCAB:,} entries are taken"
        )


def quality_warnings(dataset: Dataset, model: ModelConfig | None = None) -> Iterator[Finding]:
    """Yield what the prepared data and its statistics show; ``model``: the one to be trained, if known."""
    vocab = dataset.vocab
    yield from vocab_warnings(len(vocab), int((~vocab.is_word & ~vocab.is_special).sum()), model)
    markers = _marker_ids(vocab)
    names = list(dataset.header.corpora)
    for name in names:
        yield from _corpus_warnings(dataset.corpus(name), vocab, markers)
    for split, pair in sorted({tuple(name.split(".")[:2]) for name in names if name.count(".") == 2}):
        yield from _alignment_warnings(*dataset.pair(split, pair))
    try:
        statistics = Statistics.read(dataset.path / STATISTICS)
    except DataError as damage:
        yield error(str(damage))
    else:
        yield from raw_text_warnings(statistics) if statistics else ()


def no_validation(validator: Validator) -> Iterator[Finding]:
    """Find data without validation text for what is trained."""
    if not validator.measures:
        what = "There is no validation text of what is trained on: no evaluation, and no best checkpoint."
        yield warning(what, "prepare the data with valid.mono or valid.pairs")


def _corpus_warnings(corpus: Corpus, vocab: Vocab, markers: dict[str, np.ndarray]) -> Iterator[Finding]:
    language = corpus.name.rpartition(".")[2]
    tokens = unknown = spans = 0
    others: Counter[str] = Counter()
    for sentences in filter(len, sample_spans(corpus, _SAMPLE_TOKENS)):
        ids = span_ids(corpus, sentences)
        tokens += len(ids) - len(sentences)
        unknown += int(np.count_nonzero(ids == vocab.special.unk))
        if len(ids):
            whole = whole_words(ids, vocab)
            counts = {other: int(np.isin(whole, wanted).sum()) for other, wanted in markers.items()}
            spans += 1
            if other := detected_language(language, counts):
                others[other] += 1
    yield from unk_warnings(corpus.name, unknown / max(tokens, 1))
    for other, times in others.items():
        yield swapped(corpus.name, "it" if spans == 1 else f"{times} of its {spans} sampled parts", other, language)


def _alignment_warnings(one: Corpus, other: Corpus) -> Iterator[Finding]:
    for sentences in sample_spans(one, _SAMPLE_TOKENS):
        lengths = [np.diff(side.offsets[sentences.start : sentences.stop + 1]) for side in (one, other)]
        if found := shifted(lengths[0], lengths[1]):
            index, shift = found
            what = f"from about sentence {sentences.start + index:,} on, {lines_shifted(shift)} {other.name}"
            yield error(f"{one.name}: {what}; are the pairs misaligned?")
            return


def _marker_ids(vocab: Vocab) -> dict[str, np.ndarray]:
    """Return language -> the ids of its commonest words that are in the vocabulary."""
    found = {language: [vocab.id(word) for word in words] for language, words in MARKERS.items()}
    return {language: np.array([id for id in ids if id != vocab.special.unk]) for language, ids in found.items()}
