"""Sources give all of the text once an epoch, every epoch otherwise, the same whenever asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import xlmtrain.data.sources
from tests.support.tiny import stored
from xlmtrain.data.dataset import Corpus
from xlmtrain.data.sequences import SequenceBatch
from xlmtrain.data.sources import PairSource, WindowSource, cut_by_tokens
from xlmtrain.errors import DataError
from xlmtrain.text.vocab import EOS, PAD


def corpus_of(sentences: list[list[int]], name: str = "train.en") -> Corpus:
    ids = np.array([token for sentence in sentences for token in [*sentence, EOS]], dtype=np.uint16)
    return Corpus(name, stored(ids), stored(np.cumsum([0] + [len(sentence) + 1 for sentence in sentences])))


def numbered(tokens: int) -> Corpus:
    """A text whose every token is its own place."""
    return Corpus("train.en", stored(np.arange(tokens, dtype=np.int32)), stored(np.array([0, tokens])))


def same(a: SequenceBatch, b: SequenceBatch) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(a, b))


def stream(tokens: int = 1000, length: int = 10, rows: int = 4, seed: int = 0) -> WindowSource:
    return WindowSource(numbered(tokens), 1, length, rows, seed)


def test_stream_visits_every_window_once_an_epoch() -> None:
    source = stream(1000, 10, 4)
    assert source.sub_batch_count(0) == 25
    for epoch in range(3):
        tokens = np.concatenate([source.sequences(epoch, index).tokens for index in range(25)])
        assert tokens.shape == (100, 10)
        assert np.array_equal(np.sort(tokens.ravel()), np.arange(1000))
        assert np.array_equal(np.diff(tokens, axis=1) % 1000, np.ones((100, 9)))  # running text, around the end
        assert not np.array_equal(tokens[:, 0], np.sort(tokens[:, 0]))


def test_stream_leaves_out_less_than_a_window_and_never_the_same() -> None:
    source = stream(1003, 10, 4)
    left_out = []
    for epoch in range(6):
        tokens = np.concatenate(
            [source.sequences(epoch, index).tokens for index in range(source.sub_batch_count(epoch))]
        )
        assert len(np.unique(tokens)) == 1000
        left_out.append(tuple(sorted(set(range(1003)) - set(tokens.ravel().tolist()))))
    assert len(set(left_out)) > 1


def test_stream_is_cut_at_another_place_each_epoch() -> None:
    source = stream()
    cuts = {int(source.sequences(epoch, 0).tokens[0, 0] % 10) for epoch in range(40)}
    assert len(cuts) >= 9


def test_last_draw_of_a_stream_is_filled_up_with_the_first_windows() -> None:
    source = stream(tokens=90, length=10, rows=4)
    assert source.sub_batch_count(0) == 3
    first, last = source.sequences(0, 0).tokens, source.sequences(0, 2).tokens
    assert last.shape == (4, 10)
    assert np.array_equal(last[1:], first[:3])


def test_stream_rows_say_where_and_what_they_are() -> None:
    rows = stream().sequences(0, 0)
    assert np.array_equal(rows.positions, np.tile(np.arange(10), (4, 1)))
    assert (rows.languages == 1).all()
    assert (rows.lengths == 10).all()
    assert {array.dtype for array in rows} == {np.dtype(np.int64)}


def test_stream_is_a_pure_function() -> None:
    a, b = stream(), stream()
    for epoch, index in ((2, 3), (0, 0), (2, 3), (1, 24)):
        assert same(a.sequences(epoch, index), stream().sequences(epoch, index))
    assert same(a.sequences(2, 3), b.sequences(2, 3))
    assert not same(a.sequences(2, 3), stream(seed=1).sequences(2, 3))


def test_stream_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(DataError, match=r"train\.en: 9 tokens, less than one sequence of data\.sequence_length=10"):
        stream(9, 10)


def pairs(count: int = 500, seed: int = 0, budget: int = 256, max_length: int = 30) -> tuple[PairSource, list[int]]:
    """A source of pairs whose sides all begin with the pair's number + 100; the numbers of those within max_length."""
    rng = np.random.default_rng(9)
    lengths = np.minimum(rng.geometric(0.08, size=(count, 2)), 60)
    lengths[7, 0] = lengths[8, 1] = 0
    sides = [
        corpus_of([[100 + i] + [5000] * (n - 1) if n else [] for i, n in enumerate(side)], f"train.de-en.{language}")
        for language, side in zip(("de", "en"), lengths.T)
    ]
    eligible = [i for i, both in enumerate(lengths) if both.min() > 0 and both.max() <= max_length]
    return PairSource((sides[0], sides[1]), (0, 1), budget, max_length, seed), eligible


def test_every_pair_that_may_be_read_is_read_once_an_epoch() -> None:
    source, eligible = pairs()
    assert 300 < len(eligible) < 490
    assert source.sentences == len(eligible)
    for epoch in range(3):
        seen = []
        for index in range(source.sub_batch_count(epoch)):
            rows = source.sequences(epoch, index)
            second = np.argmax((rows.positions == 0) & (np.arange(rows.tokens.shape[1]) > 0), axis=1)
            heads = rows.tokens[:, 1]
            assert np.array_equal(heads, rows.tokens[np.arange(len(heads)), second + 1])  # translations stay together
            seen += (heads - 100).tolist()
        assert sorted(seen) == eligible


def test_pairs_are_looked_through_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = pairs()
    monkeypatch.setattr(xlmtrain.data.sources, "_CHUNK_PAIRS", 7)
    pieces, _ = pairs()
    assert pieces.sub_batch_count(0) == whole.sub_batch_count(0)
    assert all(same(pieces.sequences(0, index), whole.sequences(0, index)) for index in range(whole.sub_batch_count(0)))


def test_pair_draws_keep_the_budget_and_waste_little() -> None:
    source, _ = pairs(2000)
    positions = tokens = 0
    for index in range(source.sub_batch_count(0)):
        rows = source.sequences(0, index)
        assert rows.tokens.size <= 256
        assert rows.tokens.shape[1] == rows.lengths.max()
        assert ((rows.tokens == PAD) == (np.arange(rows.tokens.shape[1]) >= rows.lengths[:, None])).all()
        positions += rows.tokens.size
        tokens += int(rows.lengths.sum())
    assert tokens / positions > 0.98
    assert tokens / (source.sub_batch_count(0) * 256) > 0.85


def test_pairs_change_company_and_order_each_epoch() -> None:
    source, _ = pairs()
    lengths = [
        [int(source.sequences(epoch, index).lengths.max()) for index in range(source.sub_batch_count(epoch))]
        for epoch in (0, 1)
    ]
    assert lengths[0] != sorted(lengths[0])  # not from short to long
    company = [
        {
            frozenset(source.sequences(epoch, index).tokens[:, 1].tolist())
            for index in range(source.sub_batch_count(epoch))
        }
        for epoch in (0, 1)
    ]
    assert len(company[0] & company[1]) < len(company[0]) / 4


def test_pairs_are_a_pure_function() -> None:
    source, _ = pairs()
    for epoch, index in ((1, 3), (0, 0), (1, 3), (0, 9)):
        assert same(source.sequences(epoch, index), pairs()[0].sequences(epoch, index))
    assert not same(source.sequences(1, 3), pairs(seed=1)[0].sequences(1, 3))


def test_no_pair_within_the_limit_is_refused() -> None:
    with pytest.raises(DataError, match=r"train\.de-en\.de: none of 500 pairs .*max_sentence_length=0"):
        pairs(max_length=0)


def test_cut_by_tokens() -> None:
    assert cut_by_tokens(np.array([5, 5, 5, 6, 6, 10, 10, 30]), 20).tolist() == [0, 3, 5, 7, 8]
    assert cut_by_tokens(np.array([30, 40]), 20).tolist() == [0, 1, 2]  # longer than the budget: alone
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = np.sort(rng.integers(1, 50, size=200))
        bounds = cut_by_tokens(lengths, 100)
        assert bounds[0] == 0
        assert bounds[-1] == 200
        assert all(0 < (end - start) * lengths[end - 1] <= 100 for start, end in itertools.pairwise(bounds))
