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
from xlmtrain.errors import DataError
from xlmtrain.evaluate.validator import Validator
from xlmtrain.prepare.statistics import STATISTICS, Statistics
from xlmtrain.text.alignment_check import lines_shifted, shifted
from xlmtrain.text.langid import MARKERS, detected_language
from xlmtrain.text.suspects import SUSPECTS
from xlmtrain.text.vocab import Vocab

LARGEST_VOCAB = 1_000_000  # trained with
LARGE_VOCAB = 200_000
MAX_EMBEDDING_SHARE = 0.95  # share of a model's parameters
_UNK_RATE = 0.01
_SEGMENTED_RATE = 0.01
_SUSPECT_RATE = 0.0001
_SUBWORDS_PER_WORD = 3.0
_PARTS_RATE = 0.01  # of a vocabulary of more than
_SMALL_VOCAB = 1000
_WIDTH = 1024
_SAMPLE_TOKENS = 1 << 20


def check_vocabulary(size: int, model: ModelConfig) -> None:
    """Raise DataError for a vocabulary too large for any model; text without BPE has one of millions."""
    if size > LARGEST_VOCAB:
        raise DataError(
            f"the data has a vocabulary of {size:,}: the embeddings alone would have {size * model.dim / 1e6:,.0f} "
            "million parameters; was BPE forgotten? Prepare the data again, with fewer bpe.merges or vocab.max_size; "
            f"up to {LARGEST_VOCAB:,} entries are taken"
        )


def statistics_warnings(statistics: Statistics) -> Iterator[Finding]:
    """Yield what the statistics of preparation show, complete or as far as they are counted."""
    yield from _raw_text_warnings(statistics)
    for total in statistics.totals():
        yield from _unk_warnings(total.file, total.unknown_rate)
    yield from _vocab_warnings(statistics.vocab_size, statistics.vocab_parts)


def quality_warnings(dataset: Dataset, model: ModelConfig | None = None) -> Iterator[Finding]:
    """Yield what the prepared data and its statistics show; ``model``: the one to be trained, if known."""
    vocab = dataset.vocab
    yield from _vocab_warnings(len(vocab), int((~vocab.is_word & ~vocab.is_special).sum()), model)
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
        yield from _raw_text_warnings(statistics) if statistics else ()


def no_validation(validator: Validator) -> Iterator[Finding]:
    """Find data without validation text for what is trained."""
    if not validator.measures:
        what = "There is no validation text of what is trained on: no evaluation, and no best checkpoint."
        yield warning(what, "prepare the data with valid.mono or valid.pairs")


def _raw_text_warnings(statistics: Statistics) -> Iterator[Finding]:
    """Yield what only the statistics show: the prepared ids do not."""
    for file in statistics.files:
        corpus = ".".join((file.split, file.pair or "mono", file.language))
        if file.reads_like:
            yield _swapped(corpus, file.file, file.reads_like, file.language)
        if file.segmented > _SEGMENTED_RATE * file.lines:
            count = f"{file.segmented:,} of {file.lines:,}"
            yield error(f"{corpus}: {count} lines of {file.file} hold '@@ ', as after BPE; give raw text")
        for kind, (lines, first) in file.suspects.items():
            if lines >= _SUSPECT_RATE * file.lines:
                where = f"{lines:,} of {file.lines:,} lines, first {file.file}:{first},"
                yield warning(f"{corpus}: {where} {SUSPECTS[kind][0]}")
    for total in statistics.totals():
        if repeated := total.dropped["decontaminate"]:
            what = f"{repeated:,} lines are in the validation or test text, too; they were left out"
            yield warning(f"{total.file}: {what}")
        if total.subwords > _SUBWORDS_PER_WORD * total.words:
            what = f"{total.subwords / total.words:.1f} subwords a word"
            yield error(f"{total.file}: {what}; were the codes learned from text like this, and enough of them?")


def _vocab_warnings(size: int, parts: int, model: ModelConfig | None = None) -> Iterator[Finding]:
    """Find a vocabulary of ``size`` entries that is large, or has few entries that do not end a word (``parts``)."""
    if size > LARGE_VOCAB:
        count = f"{size * _WIDTH / 1e6:,.0f} million parameters"
        what = f"the embeddings of a model of {_WIDTH} dimensions alone would have {count}"
        yield error(f"a vocabulary of {size:,}: {what}; take fewer bpe.merges, or vocab.max_size")
    if size > _SMALL_VOCAB and parts < _PARTS_RATE * size:
        what = f"of the vocabulary's {size:,} entries {parts:,} are parts of words, ending with @@"
        yield error(f"{what}: was BPE forgotten, or bpe.merges too many? All other words become one unknown token")
    if model is not None:
        embeddings = size * model.dim
        total = embeddings + model.block_weights * model.layers
        if embeddings > MAX_EMBEDDING_SHARE * total:
            what = f"{embeddings / total:.0%} of the model's {total / 1e6:,.0f} million parameters are embeddings"
            yield error(f"{what} of the vocabulary's {size:,} entries; a larger model, or fewer bpe.merges?")


def _unk_warnings(corpus: str, rate: float) -> Iterator[Finding]:
    """Find a corpus of whose subwords the share ``rate`` is not in the vocabulary."""
    if rate > _UNK_RATE:
        what = f"{rate:.1%} of the subwords are not in the vocabulary"
        yield error(f"{corpus}: {what}; were codes and vocabulary made from text like this?")


def _swapped(corpus: str, text: str, other: str, language: str) -> Finding:
    return error(f"{corpus}: {text} reads like {other}, not {language}; were files swapped?")


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
    yield from _unk_warnings(corpus.name, unknown / max(tokens, 1))
    for other, times in others.items():
        yield _swapped(corpus.name, "it" if spans == 1 else f"{times} of its {spans} sampled parts", other, language)


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
