"""Warnings about text that the statistics of its preparation show. Preparation prints them, and does not need torch."""

from __future__ import annotations

from collections.abc import Iterator

from xlmtrain.config.model import ModelConfig
from xlmtrain.diagnostics.finding import Finding, error, warning
from xlmtrain.prepare.statistics import Statistics
from xlmtrain.text.suspects import SUSPECTS

LARGE_VOCAB = 200_000
MAX_EMBEDDING_SHARE = 0.95  # share of a model's parameters
_UNK_RATE = 0.01
_SEGMENTED_RATE = 0.01
_SUSPECT_RATE = 0.0001
_SUBWORDS_PER_WORD = 3.0
_PARTS_RATE = 0.01  # of a vocabulary of more than
_SMALL_VOCAB = 1000
_WIDTH = 1024


def statistics_warnings(statistics: Statistics) -> Iterator[Finding]:
    """Yield what the statistics of preparation show, complete or as far as they are counted."""
    yield from raw_text_warnings(statistics)
    for total in statistics.totals():
        yield from unk_warnings(total.file, total.unknown_rate)
    yield from vocab_warnings(statistics.vocab_size, statistics.vocab_parts)


def raw_text_warnings(statistics: Statistics) -> Iterator[Finding]:
    """Yield what only the statistics show: the prepared ids do not."""
    for file in statistics.files:
        corpus = ".".join((file.split, file.pair or "mono", file.language))
        if file.reads_like:
            yield swapped(corpus, file.file, file.reads_like, file.language)
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


def vocab_warnings(size: int, parts: int, model: ModelConfig | None = None) -> Iterator[Finding]:
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


def unk_warnings(corpus: str, rate: float) -> Iterator[Finding]:
    """Find a corpus of whose subwords the share ``rate`` is not in the vocabulary."""
    if rate > _UNK_RATE:
        what = f"{rate:.1%} of the subwords are not in the vocabulary"
        yield error(f"{corpus}: {what}; were codes and vocabulary made from text like this?")


def swapped(corpus: str, text: str, other: str, language: str) -> Finding:
    """Return the error that a ``text`` for ``language`` reads like the ``other`` one."""
    return error(f"{corpus}: {text} reads like {other}, not {language}; were files swapped?")
