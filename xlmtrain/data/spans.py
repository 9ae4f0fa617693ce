"""Statistics of a corpus from spans spread evenly over it, at the same cost whatever its size."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from xlmtrain.data.dataset import Corpus
from xlmtrain.text.vocab import Vocab

SPANS = 64
_SAMPLE_TOKENS = 1 << 20


def sample_spans(corpus: Corpus, tokens: int) -> Iterator[range]:
    """Yield :data:`SPANS` ranges of sentences with about ``tokens`` tokens in all; one range for a smaller corpus."""
    if len(corpus.ids) <= tokens:
        yield range(len(corpus))
        return
    for number in range(SPANS):
        begin = number * len(corpus.ids) // SPANS
        first, last = (bisect_left(corpus.offsets, place) for place in (begin, begin + tokens // SPANS))
        yield range(first, min(last, len(corpus)))


def span_ids(corpus: Corpus, sentences: range) -> np.ndarray:
    """Return the concatenated ids of a range of sentences, each ending with EOS."""
    return corpus.ids[corpus.offsets[sentences.start] : corpus.offsets[sentences.stop]]


def duplicate_rate(corpus: Corpus) -> float:
    """Return the share of non-empty sentences that repeat an earlier one, in the sampled spans."""
    seen: set[bytes] = set()
    count = 0
    for sentences in sample_spans(corpus, _SAMPLE_TOKENS):
        ids = span_ids(corpus, sentences)
        bounds = np.asarray(corpus.offsets[sentences.start : sentences.stop + 1])
        for begin, end in pairwise((bounds - bounds[:1]).tolist()):
            if end - begin > 1:
                seen.add(ids[begin:end].tobytes())
                count += 1
    return 1 - len(seen) / max(count, 1)


def count_words(corpus: Corpus, vocab: Vocab, tokens: int) -> Counter[str]:
    """Return the words and their counts in spans of about ``tokens`` tokens."""
    counts: Counter[str] = Counter()
    for sentences in sample_spans(corpus, tokens):
        ids = span_ids(corpus, sentences)
        for sentence in np.split(ids, np.flatnonzero(ids == vocab.special.eos) + 1):
            counts.update(vocab.decode(sentence[:-1].tolist()).split())
    return counts


def whole_words(ids: np.ndarray, vocab: Vocab) -> np.ndarray:
    """Return those of ``ids``, which end with an end of sentence, that are a word of one subword."""
    begins = vocab.begins_word(ids)
    return ids[begins & np.append(begins[1:], True) & (ids != vocab.special.eos)]
