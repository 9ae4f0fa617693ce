"""The noise of denoising: the original's given its random numbers, and of the stated distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.data.test_masking import assert_share
from tests.support.tiny import tiny_config
from xlmtrain.config.data import NoiseConfig
from xlmtrain.data.noise import Noise
from xlmtrain.data.sequences import SequenceBatch, sentence_sequences
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.rng import generator
from xlmtrain.text.vocab import EOS, MASK, PAD, SPECIALS, Vocab

VOCAB = Vocab([(f"w{i}" + ("@@" if i % 3 == 0 else ""), 1) for i in range(300)])
OFF = {"shuffle_distance": 0.0, "drop_prob": 0.0, "blank_prob": 0.0}


class OriginalNumbers(np.random.Generator):
    """The numbers that the original draws from numpy's old generator, time first."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(0))
        self._old = np.random.RandomState(seed)

    def random(self, size: Any = None, *_: Any, **__: Any) -> Any:
        return self._old.random_sample(size[::-1]).T

    def integers(self, low: Any, high: Any = None, *_: Any, **__: Any) -> Any:
        return self._old.randint(low, high)


def sequences_of(tokens: Any, lengths: Any) -> SequenceBatch:
    """The reference's sentences, (T, B), as ours."""
    columns = tokens.T.numpy()
    sentences = [row[1:length] for row, length in zip(columns, lengths.tolist())]
    return sentence_sequences(sentences, 0)


def assert_same(found: SequenceBatch, tokens: Any, lengths: Any) -> None:
    assert np.array_equal(found.tokens, tokens.T.numpy())
    assert np.array_equal(found.lengths, lengths.numpy())


@pytest.mark.parametrize("kind", ["word_shuffle", "word_dropout", "word_blank"])
def test_each_noise_is_the_originals_given_its_numbers(translation: dict[str, Any], kind: str) -> None:
    name = {"word_shuffle": "shuffle_distance", "word_dropout": "drop_prob", "word_blank": "blank_prob"}[kind]
    for value, case in translation["noise"][kind].items():
        noise = Noise(NoiseConfig(**{**OFF, name: float(value)}), VOCAB)
        found = noise(sequences_of(case["x_in"], case["lengths_in"]), OriginalNumbers(case["numpy_seed"]))
        assert_same(found, case["x_out"], case["lengths_out"])
        short = sequences_of(case["short_in"], case["short_lengths_in"])
        assert_same(
            noise(short, OriginalNumbers(case["short_numpy_seed"])), case["short_out"], case["short_lengths_out"]
        )


def test_all_noises_together_are_the_originals(translation: dict[str, Any]) -> None:
    for value, case in translation["noise"]["add_noise"].items():
        shuffle, drop, blank = map(float, value.split(","))
        noise = Noise(NoiseConfig(shuffle_distance=shuffle, drop_prob=drop, blank_prob=blank), VOCAB)
        found = noise(sequences_of(case["x_in"], case["lengths_in"]), OriginalNumbers(case["numpy_seed"]))
        assert_same(found, case["x_out"], case["lengths_out"])
    case = translation["cases"]["ae_de"]
    found = Noise(NoiseConfig(), VOCAB)(
        sequences_of(case["clean"], case["clean_lengths"]), OriginalNumbers(case["numpy_seed"])
    )
    assert_same(found, case["source"], case["source_lengths"])


def text(count: int = 2000, words: int = 60, distinct: bool = True) -> SequenceBatch:
    """Sentences of words that are all different, none of which is continued unless ``distinct`` is off."""
    if not distinct:
        ids = np.random.default_rng(0).integers(len(SPECIALS), len(VOCAB), size=(count, words))
        ids[:, -1] = len(SPECIALS) + 1
        return sentence_sequences([np.append(row, EOS) for row in ids], 1)
    ids = np.array([i for i in range(len(SPECIALS), len(VOCAB)) if not VOCAB.token(i).endswith("@@")])[:words]
    return sentence_sequences([np.append(ids, EOS)] * count, 1)


@pytest.mark.parametrize("shuffle", [1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("whole_words", [False, True])
def test_words_swap_with_the_stated_probability(shuffle: float, whole_words: bool) -> None:
    clean = text()
    found = Noise(NoiseConfig(shuffle, 0.0, 0.0, whole_words), VOCAB)(clean, generator(0, "noise"))
    places = found.tokens[:, 1:-1].argsort(axis=1)  # ids rise in a clean sentence
    assert abs(places - np.arange(60)).max() < shuffle
    for distance in range(1, 6):
        swapped = places[:, :-distance] > places[:, distance:]
        every = swapped[:, ::10]  # far enough apart to be independent
        probability = max(shuffle - distance, 0.0) ** 2 / (2 * shuffle**2)
        assert_share(int(every.sum()), every.size, probability)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("whole_words", [False, True])
def test_words_are_dropped_and_blanked_at_the_stated_rates(rate: float, whole_words: bool) -> None:
    clean = text()
    dropped = Noise(NoiseConfig(0.0, rate, 0.0, whole_words), VOCAB)(clean, generator(0, "noise"))
    assert_share(int((clean.lengths - dropped.lengths).sum()), 2000 * 60, rate)
    blanked = Noise(NoiseConfig(0.0, 0.0, rate, whole_words), VOCAB)(clean, generator(0, "noise"))
    assert_share(int((blanked.tokens == MASK).sum()), 2000 * 60, rate)
    assert np.array_equal(blanked.tokens[blanked.tokens != MASK], clean.tokens[blanked.tokens != MASK])


def groups(tokens: np.ndarray) -> list[tuple[int, ...]]:
    """The words of a sentence without delimiters, each as its subwords."""
    found: list[list[int]] = [[]]
    for id in tokens.tolist():
        found[-1].append(id)
        if id == MASK or not VOCAB.token(id).endswith("@@"):
            found.append([])
    return [tuple(group) for group in found if group]


def test_whole_words_stay_together() -> None:
    clean = text(300, 20, distinct=False)
    moved = Noise(NoiseConfig(3.0, 0.2, 0.0, whole_words=True), VOCAB)(clean, generator(0, "noise"))
    apart = Noise(NoiseConfig(3.0, 0.2, 0.0), VOCAB)(clean, generator(0, "noise"))
    blanked = Noise(NoiseConfig(0.0, 0.0, 0.3, whole_words=True), VOCAB)(clean, generator(0, "noise"))
    torn = 0
    for row in range(300):
        words = groups(clean.tokens[row, 1:-1])
        assert set(groups(moved.tokens[row, 1 : moved.lengths[row] - 1])) <= set(words)
        torn += not set(groups(apart.tokens[row, 1 : apart.lengths[row] - 1])) <= set(words)
        place = 1
        for word in words:
            masked = blanked.tokens[row, place : place + len(word)] == MASK
            assert masked.all() or not masked.any()
            place += len(word)
    assert torn > 200


@pytest.mark.parametrize("whole_words", [False, True])
def test_delimiters_stay_and_a_sentence_keeps_a_word(whole_words: bool) -> None:
    ids = [np.append(np.arange(20, 20 + n), EOS) for n in range(6) for _ in range(200)]
    clean = sentence_sequences(ids, 1)
    found = Noise(NoiseConfig(3.0, 0.9, 0.5, whole_words), VOCAB)(clean, generator(0, "noise"))
    last = found.lengths - 1
    assert (found.lengths >= np.minimum(clean.lengths, 3)).all()
    assert (found.tokens[:, 0] == EOS).all()
    assert (found.tokens[np.arange(len(last)), last] == EOS).all()
    inside = (np.arange(found.tokens.shape[1]) > 0) & (np.arange(found.tokens.shape[1]) < last[:, None])
    assert not np.isin(found.tokens[inside], (EOS, PAD)).any()
    assert (found.tokens[np.arange(found.tokens.shape[1]) > last[:, None]] == PAD).all()
    assert (found.languages == 1).all()
    put_back = found.tokens[(clean.lengths == 7) & (found.lengths == 3), 1]
    # Any of the words may be put back. 20 and 23 are continued by the next one.
    assert set(put_back.tolist()) - {MASK} == ({22} if whole_words else {20, 21, 22, 23, 24})


def test_noise_that_is_off_changes_nothing() -> None:
    clean = text(10)
    found = Noise(NoiseConfig(**OFF), VOCAB)(clean, generator(0, "noise"))
    assert np.array_equal(found.tokens, clean.tokens)


def test_the_key_alone_decides() -> None:
    clean, noise = text(8, 32), Noise(NoiseConfig(), VOCAB)
    first = noise(clean, generator(0, "noise", "dae.en", 3, 5))
    generator(0, "noise", "dae.en", 3, 5).random(1000)
    again = noise(clean, generator(0, "noise", "dae.en", 3, 5))
    other = noise(clean, generator(0, "noise", "dae.en", 3, 6))
    assert np.array_equal(first.tokens, again.tokens)
    assert not np.array_equal(first.tokens[:, :20], other.tokens[:, :20])
    assert np.array_equal(clean.tokens, text(8, 32).tokens)  # the clean sentences are still needed as targets


@pytest.mark.parametrize(
    "settings", [{"shuffle_distance": 1.0}, {"shuffle_distance": -1.0}, {"drop_prob": 1.0}, {"blank_prob": -0.1}]
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        tiny_config("run", "data", {f"noise.{name}": value for name, value in settings.items()})
