"""Some of a corpus stands for all of it, and words are counted as words."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import stored, write_corpus, write_header
from xlmtrain.data.dataset import Corpus, Dataset
from xlmtrain.data.spans import SPANS, count_words, sample_spans, span_ids, whole_words
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
    assert count_words(corpus, VOCAB, len(corpus.ids)) == expected
    assert [VOCAB.token(i) for i in np.flatnonzero(~VOCAB.is_word & ~VOCAB.is_special)] == ["un@@", "der@@"]
    single = Counter(map(VOCAB.token, whole_words(corpus.ids[:], VOCAB).tolist()))
    assert single == {word: expected[word] for word in ("the", "der", "a")}


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
    assert not count_words(corpus, VOCAB, 100)
