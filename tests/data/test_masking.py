"""Masking has the published statistics: within four standard deviations of the binomial, with a fixed seed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.oracle import Oracle
from xlmtrain.config.data import MaskConfig
from xlmtrain.data.masking import Masker
from xlmtrain.data.sequences import SequenceBatch, window_sequences
from xlmtrain.runtime.rng import generator
from xlmtrain.text.vocab import EOS, MASK, PAD, SPECIALS, UNK, Vocab

WORDS = 500
VOCAB = Vocab((f"w{i}", 1000) for i in range(WORDS - len(SPECIALS)))


def rows_of(tokens: np.ndarray, lengths: np.ndarray | None = None) -> SequenceBatch:
    rows = window_sequences(tokens, 0)
    return rows if lengths is None else SequenceBatch(rows.tokens, rows.positions, rows.languages, lengths)


def text(count: int = 400, length: int = 256) -> SequenceBatch:
    return rows_of(np.random.default_rng(0).integers(len(SPECIALS), WORDS, size=(count, length)))


def assert_share(hits: int, trials: int, share: float) -> None:
    deviation = np.sqrt(trials * share * (1 - share))
    assert abs(hits - trials * share) <= 4 * deviation, f"{hits} of {trials}, {share} expected"


@pytest.fixture(scope="module")
def masked() -> tuple[SequenceBatch, np.ndarray, np.ndarray]:
    rows = text()
    return rows, *Masker(MaskConfig(), VOCAB)(rows, generator(0, "mask", "mlm.en", 0, 0))


def test_share_of_predicted_tokens(masked: tuple[SequenceBatch, np.ndarray, np.ndarray]) -> None:
    _, _, selected = masked
    assert not selected[:, 0].any()
    assert_share(int(selected.sum()), selected[:, 1:].size, 0.15)


def test_what_stands_in_their_place(masked: tuple[SequenceBatch, np.ndarray, np.ndarray]) -> None:
    rows, inputs, selected = masked
    was, now = rows.tokens[selected], inputs[selected]
    assert_share(int((now == MASK).sum()), len(now), 0.8 + 0.1 / WORDS)
    assert_share(int((now == was).sum()), len(now), 0.1 + 0.1 / WORDS)
    assert_share(int(((now != was) & (now != MASK)).sum()), len(now), 0.1 - 0.2 / WORDS)
    assert np.array_equal(inputs[~selected], rows.tokens[~selected])


def test_random_words_come_from_the_whole_vocabulary_evenly() -> None:
    rows = text(800)
    inputs, selected = Masker(MaskConfig(mask_token_prob=0.0, random_token_prob=1.0), VOCAB)(rows, generator(0, "mask"))
    counts = np.bincount(inputs[selected], minlength=WORDS)
    assert len(counts) == WORDS
    assert counts[: len(SPECIALS)].all()  # special symbols too, as the original
    expected = counts.sum() / WORDS
    # chi-squared of 499 degrees of freedom: mean 499, deviation sqrt(998)
    assert abs(((counts - expected) ** 2 / expected).sum() - (WORDS - 1)) < 4 * np.sqrt(2 * (WORDS - 1))


def test_shares_are_settings() -> None:
    rows = text(100)
    inputs, selected = Masker(MaskConfig(prob=0.4, mask_token_prob=0.5, random_token_prob=0.0), VOCAB)(
        rows, generator(0, "mask")
    )
    assert_share(int(selected.sum()), selected[:, 1:].size, 0.4)
    assert_share(int((inputs[selected] == MASK).sum()), int(selected.sum()), 0.5)
    assert_share(int((inputs[selected] == rows.tokens[selected]).sum()), int(selected.sum()), 0.5)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_padding_and_first_position_are_never_chosen(alpha: float) -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 33, size=300)
    tokens = rng.integers(len(SPECIALS), WORDS, size=(300, 32))
    padding = np.arange(32) >= lengths[:, None]
    tokens[padding] = PAD
    _, selected = Masker(MaskConfig(prob=0.9, inverse_frequency_exponent=alpha), VOCAB)(rows_of(tokens, lengths), rng)
    assert selected.sum() > 2000
    assert not selected[:, 0].any()
    assert not selected[padding].any()


def test_eos_and_unk_are_chosen_by_uniform_masking_alone() -> None:
    tokens = np.where(np.random.default_rng(0).random((200, 64)) < 0.3, EOS, 40)
    tokens[tokens == 40] = np.where(np.random.default_rng(1).random((tokens == 40).sum()) < 0.3, UNK, 40)
    _, selected = Masker(MaskConfig(), VOCAB)(rows_of(tokens), generator(0, "mask"))
    assert {EOS, UNK, 40} == set(tokens[selected])
    _, selected = Masker(MaskConfig(inverse_frequency_exponent=0.5), VOCAB)(rows_of(tokens), generator(0, "mask"))
    assert {40} == set(tokens[selected])


def test_frequency_weights_are_the_oracles(oracle: Oracle) -> None:
    """A row of two words: the chance that the only one to be chosen is the first is its weight's share."""
    vocab = Vocab((f"w{i}", count) for i, count in enumerate(oracle.numbers["counts"]))
    scores = oracle["mask_scores"].numpy()
    masker = Masker(MaskConfig(prob=0.4, inverse_frequency_exponent=0.5), vocab)
    trials = 1500
    for first, second in ((14, 199), (14, 15), (50, 120)):
        # rate 0.4 of two words that may be chosen is one, rounded up; the first position does not count
        rows = rows_of(np.array([[EOS, first, second]]))
        chosen = [int(rows.tokens[masker(rows, generator(3, "mask", i))[1]][0]) for i in range(trials)]
        assert_share(chosen.count(first), trials, scores[first] / (scores[first] + scores[second]))
    assert not scores[: len(SPECIALS)].any()


def test_frequency_masking_takes_its_share_exactly(oracle: Oracle) -> None:
    vocab = Vocab((f"w{i}", count) for i, count in enumerate(oracle.numbers["counts"]))
    rows = rows_of(np.random.default_rng(0).integers(14, 200, size=(20, 33)))
    _, selected = Masker(MaskConfig(inverse_frequency_exponent=0.5), vocab)(rows, generator(0, "mask"))
    assert selected.sum() == np.ceil(0.15 * 20 * 32)
    frequent, rare = rows.tokens < 20, rows.tokens > 150
    assert selected[frequent].mean() < 0.5 * selected[rare].mean()


def test_nothing_to_choose() -> None:
    """Rows of special symbols, or of one position, have no target; nothing breaks."""
    for alpha in (0.0, 0.5):
        masker = Masker(MaskConfig(inverse_frequency_exponent=alpha), VOCAB)
        assert not masker(rows_of(np.full((3, 1), 40)), generator(0, "mask"))[1].any()
    inputs, selected = masker(rows_of(np.full((3, 9), EOS)), generator(0, "mask"))
    assert not selected.any()
    assert (inputs == EOS).all()


def test_the_key_alone_decides() -> None:
    rows, masker = text(8, 32), Masker(MaskConfig(), VOCAB)
    first = masker(rows, generator(0, "mask", "mlm.en", 3, 5))
    generator(0, "mask", "mlm.en", 3, 5).random(1000)
    again = masker(rows, generator(0, "mask", "mlm.en", 3, 5))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    others: list[tuple[int, str, int, int]] = [
        (1, "mlm.en", 3, 5),
        (0, "mlm.de", 3, 5),
        (0, "mlm.en", 4, 5),
        (0, "mlm.en", 3, 6),
    ]
    for seed, task, epoch, sub_batch in others:
        other = masker(rows, generator(seed, "mask", task, epoch, sub_batch))
        assert not np.array_equal(first[1], other[1])
