"""Some of a corpus stands for all of it, and words are counted as words."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import stored, write_corpus, write_header
from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.data.spans import SPANS, WordCounter, sample_spans, span_ids
from xlmtrain.text.vocab import EOS, Vocab

VOCAB = Vocab([(word, 1) for word in ("the", "un@@", "der@@", "stand", "der", "a")])


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Words of one to four subwords, in 3,000 sentences of which some are empty."""
    rng = np.random.default_rng(5)
    words = [["the"], ["der"], ["un@@", "der@@", "stand"], ["un@@", "der"], ["der@@", "der@@", "der@@", "a"], ["a"]]
    sentences = [[VOCAB.id(s) for i in rng.integers(6, size=n) for s in words[i]] for n in rng.integers(9, size=3000)]
    VOCAB.write(tmp_path / "vocab")
    write_header(tmp_path, VOCAB, {"train.de": write_corpus(tmp_path, "train.de", sentences)})
    return Dataset(tmp_path)


def test_words_are_counted_whole(dataset: Dataset) -> None:
    corpus = dataset.corpus("train.de")
    expected = Counter(
        word for i in range(len(corpus)) for word in VOCAB.decode(corpus.sentence(i)[:-1].tolist()).split()
    )
    words = WordCounter(VOCAB)
    for first in range(0, 3000, 700):  # in any pieces
        words.count(span_ids(corpus, range(first, min(first + 700, 3000))))
    assert dict(words.most_frequent(10)) == dict(expected)
    assert [count for _, count in words.most_frequent(4)] == sorted(expected.values(), reverse=True)[:4]
    assert words.total == sum(expected.values())
    assert words.parts == 2


def test_a_short_corpus_is_taken_whole_and_a_long_one_evenly(dataset: Dataset) -> None:
    corpus = dataset.corpus("train.de")
    assert list(sample_spans(corpus, len(corpus.ids))) == [range(3000)]
    taken = list(sample_spans(corpus, 6000))
    assert len(taken) == SPANS
    assert all(before.stop <= after.start for before, after in itertools.pairwise(taken))
    assert 5000 < sum(len(span_ids(corpus, some)) for some in taken) < 7500
    assert taken[-1].stop > 0.97 * 3000
    for some in taken:
        assert span_ids(corpus, some)[-1] == EOS


def test_nothing_is_no_trouble() -> None:
    corpus = Corpus("train.de", stored(np.empty(0, np.uint16)), stored(np.zeros(1, np.int64)))
    words = WordCounter(VOCAB)
    for some in sample_spans(corpus, 100):
        words.count(span_ids(corpus, some))
    assert (words.total, words.most_frequent(3)) == (0, [])
