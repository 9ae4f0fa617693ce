"""Statistics of a corpus from spans spread evenly over it, at the same cost whatever its size."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from xlmtrain.data.dataset import Corpus
from xlmtrain.text.vocab import CONTINUATION, EOS, Vocab

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
        bounds = np.asarray(corpus.offsets[sentences.start : sentences.stop + 1]).tolist()
        for begin, end in pairwise(bounds):
            if end - begin > 1:
                seen.add(corpus.ids[begin:end].tobytes())
                count += 1
    return 1 - len(seen) / max(count, 1)


class WordCounter:
    """Counts whole words in ids. A word is a run of subwords that all but the last end with ``@@``."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._continued = np.array([word.endswith(CONTINUATION) for word in vocab.words])
        self._counts = np.zeros(len(vocab), np.int64)
        self._longer: Counter[bytes] = Counter()
        self.total = 0

    @property
    def parts(self) -> int:
        """Number of vocabulary entries that do not end a word."""
        return int(self._continued.sum())

    def whole(self, ids: np.ndarray) -> np.ndarray:
        """Return (len(ids),) bool: the ids that are a word of one subword; EOS is none."""
        continuing = np.concatenate([[False], self._continued[ids[:-1]]])
        return ~continuing & ~self._continued[ids] & (ids != EOS)

    def count(self, ids: np.ndarray) -> None:
        """Add the words of whole sentences."""
        if not len(ids):
            return
        whole = self.whole(ids)
        self._counts += np.bincount(ids[whole], minlength=len(self._vocab))
        ends = np.flatnonzero(~self._continued[ids])
        begins = np.concatenate([[0], ends[:-1] + 1])
        longer = ends > begins
        for begin, end in zip(begins[longer].tolist(), ends[longer].tolist()):
            self._longer[ids[begin : end + 1].tobytes()] += 1
        self.total += int(whole.sum() + longer.sum())
        self._dtype = ids.dtype

    def most_frequent(self, count: int) -> list[tuple[str, int]]:
        """Return the most frequent words and their counts."""
        single = np.argsort(-self._counts, kind="stable")[:count]
        words = [(self._vocab.word(id), int(self._counts[id])) for id in single.tolist() if self._counts[id]]
        for ids, times in self._longer.most_common(count):
            words.append((self._vocab.decode(np.frombuffer(ids, self._dtype).tolist()), times))
        return sorted(words, key=lambda word: -word[1])[:count]
