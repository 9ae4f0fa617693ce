"""A translation depends on its sentence alone, has no special tokens, ends at its limit, has the score it claims."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.test_masking import assert_share
from tests.support.translation import small_model
from xlmtrain.config.model import ModelConfig
from xlmtrain.data.batch import EncoderInput, encoder_input, make_seq2seq_batch
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.errors import NumericalError
from xlmtrain.generate import search as searching
from xlmtrain.generate.beam import BeamSettings, beam_search
from xlmtrain.generate.decoding import max_target_lengths, top_tokens
from xlmtrain.generate.greedy import greedy_search, sample, sampling_numbers
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.text.vocab import EOS, SPECIALS

COUNT = 12


def lively_model(**options: Any) -> TranslationModel:
    """Random weights, scaled so that words depend on source and prefix, and that some sentences end before others."""
    torch.manual_seed(3)
    model = small_model(**options).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("decoder.blocks") and parameter.ndim == 2:
                parameter.mul_(3.0)
            elif "position" in name or "language" in name:
                parameter.mul_(0.3)
        model.decoder_head.bias[EOS] += 1.5
    return model


def sentences() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.append(rng.integers(14, 200, size=n), EOS) for n in rng.integers(0, 13, size=COUNT)]


def inputs(chosen: list[int]) -> tuple[EncoderInput, torch.Tensor]:
    sequences = sentence_sequences([sentences()[i] for i in chosen], 0)
    return encoder_input(sequences), max_target_lengths(torch.from_numpy(sequences.lengths), 512)


Search = Callable[[TranslationModel, list[int]], list[Any]]


def greedy(model: TranslationModel, chosen: list[int]) -> list[Any]:
    return [ids.tolist() for ids in greedy_search(model, inputs(chosen)[0], 1, inputs(chosen)[1])]


def sampled(model: TranslationModel, chosen: list[int]) -> list[Any]:
    source, limits = inputs(chosen)
    numbers = sampling_numbers(0, "sample", [(7, i) for i in chosen], int(limits.max()))
    return [ids.tolist() for ids in sample(model, source, 1, limits, numbers)]


def beams(model: TranslationModel, chosen: list[int], settings: BeamSettings | None = None) -> list[Any]:
    source, limits = inputs(chosen)
    found = beam_search(model, source, 1, limits, settings or BeamSettings(4))
    return [[ids.tolist() for ids, _ in best] for best in found]


@pytest.mark.parametrize("search", [greedy, sampled, beams])
@pytest.mark.parametrize("share_embeddings", [False, True])
def test_a_translation_does_not_depend_on_its_neighbours(search: Search, share_embeddings: bool) -> None:
    model = lively_model(share_embeddings=share_embeddings)
    everything = list(range(COUNT))
    together = search(model, everything)
    assert len({str(found) for found in together}) > COUNT / 2
    assert len({len(str(found)) for found in together}) > 3  # some leave the batch before others
    assert [search(model, [i])[0] for i in everything] == together
    assert search(model, everything[::-1]) == together[::-1]
    shuffled = np.random.default_rng(1).permutation(COUNT).tolist()
    assert search(model, shuffled) == [together[i] for i in shuffled]


@pytest.mark.parametrize("search", [greedy, sampled, beams])
def test_special_words_are_never_part_of_a_translation(search: Search) -> None:
    model = lively_model()
    with torch.no_grad():
        model.decoder_head.bias[: len(SPECIALS)] += 30
        model.decoder_head.bias[EOS] -= 30
    found = search(model, list(range(COUNT)))
    if search is beams:
        found = [ids for best in found for ids in best]
    assert all(ids[-1] == EOS and all(id >= len(SPECIALS) for id in ids[:-1]) for ids in found)
    source, limits = inputs([1])
    assert greedy_search(model, source, 1, limits, suppress_specials=False)[0][0] < len(SPECIALS)


@pytest.mark.parametrize("search", [greedy, sampled, beams])
def test_each_translation_that_does_not_end_is_cut_at_its_own_limit(search: Search) -> None:
    model = lively_model()
    with torch.no_grad():
        model.decoder_head.bias[EOS] = -1e4
    found = search(model, list(range(COUNT)))
    _, limits = inputs(list(range(COUNT)))
    first = [best[0] for best in found] if search is beams else found
    assert [len(ids) + 1 for ids in first] == limits.tolist()
    if search is beams:  # each prefix ends once, and there are as many translations as beams
        assert all(len({tuple(ids) for ids in best}) == len(best) == 4 for best in found)


def log_probability(model: TranslationModel, sentence: np.ndarray, ids: np.ndarray) -> float:
    """Of a translation, in one pass, special tokens suppressed."""
    batch = make_seq2seq_batch("mt", sentence_sequences([sentence], 0), sentence_sequences([ids], 1))
    with torch.no_grad():
        logits = model.logits(batch)
    logits[:, [i for i in range(len(SPECIALS)) if i != EOS]] = -torch.inf
    return logits.log_softmax(dim=1).gather(1, batch.targets[:, None]).sum().item()


@pytest.mark.parametrize(
    ("size", "penalty", "early"), [(4, 1.0, False), (3, 0.6, True), (5, 0.0, False), (1, 1.4, True)]
)
def test_scores_are_those_of_the_translations(size: int, penalty: float, early: bool) -> None:
    model = lively_model()
    source, limits = inputs(list(range(COUNT)))
    found = beam_search(model, source, 1, limits, BeamSettings(size, penalty, early))
    for sentence, best in zip(sentences(), found):
        assert [score for _, score in best] == sorted((score for _, score in best), reverse=True)
        assert len({tuple(ids.tolist()) for ids, _ in best}) == len(best) == size
        for ids, score in best:
            expected = log_probability(model, sentence, ids) / len(ids) ** penalty
            assert score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_a_wide_beam_finds_the_best_of_all_translations(penalty: float) -> None:
    torch.manual_seed(0)
    config = ModelConfig(dim=16, layers=1, heads=2, dropout=0.0, attention_dropout=0.0)
    model = TranslationModel(config, len(SPECIALS) + 5, 2).eval()
    words = range(len(SPECIALS), len(SPECIALS) + 5)
    every = [np.array([*ids, EOS]) for n in range(4) for ids in itertools.product(words, repeat=n)]
    for sentence in (np.array([15, 16, EOS]), np.array([EOS])):
        source = encoder_input(sentence_sequences([sentence], 0))
        found = beam_search(model, source, 1, torch.tensor([5]), BeamSettings(150, penalty))[0]
        scores = {tuple(ids.tolist()): log_probability(model, sentence, ids) / len(ids) ** penalty for ids in every}
        best = sorted(scores, key=lambda ids: -scores[ids])[:10]
        assert [tuple(ids.tolist()) for ids, _ in found[:10]] == best


def test_a_beam_of_one_that_stops_early_is_greedy() -> None:
    model = lively_model()
    everything = list(range(COUNT))
    assert [best[0] for best in beams(model, everything, BeamSettings(1, early_stopping=True))] == greedy(
        model, everything
    )


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_words_are_drawn_from_the_models_distribution(temperature: float) -> None:
    model, trials = lively_model(), 4000
    source, _ = inputs([3] * trials)
    numbers = sampling_numbers(0, "sample", [(i,) for i in range(trials)], 1)
    found = sample(model, source, 1, torch.full((trials,), 3), numbers, temperature)
    with torch.no_grad():
        cache = model.start(inputs([3])[0], 1, 1)
        logits = model.next_logits(torch.tensor([[EOS]]), 1, cache)[0, 0]
    logits[[i for i in range(len(SPECIALS)) if i != EOS]] = -torch.inf
    shares = (logits / temperature).softmax(dim=0)
    counts = np.bincount([ids[0] for ids in found], minlength=200)
    for word in shares.topk(8).indices.tolist():
        assert_share(int(counts[word]), trials, shares[word].item())
    assert counts[shares.numpy() == 0].sum() == 0


@pytest.mark.parametrize("temperature", [1e-4, 1e-42])  # a logit divided by the second is infinite
def test_cold_sampling_is_greedy(temperature: float) -> None:
    model = lively_model()
    source, limits = inputs(list(range(COUNT)))
    numbers = sampling_numbers(0, "sample", [(i,) for i in range(COUNT)], int(limits.max()))
    cold = [ids.tolist() for ids in sample(model, source, 1, limits, numbers, temperature)]
    assert cold == greedy(model, list(range(COUNT)))


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    model = lively_model()
    with torch.no_grad():
        model.decoder_head.bias.fill_(torch.nan)
    source, limits = inputs([0, 1])
    with pytest.raises(NumericalError, match="no numbers; try precision=fp32"):
        searching.search(model, source, 1, limits, BeamSettings(3), None, lambda _: torch.empty(0))


def test_a_length_without_a_limit_is_that_of_the_model() -> None:
    assert max_target_lengths(torch.tensor([3, 30]), 512, ratio=1e19).tolist() == [512, 512]


def test_sampling_is_keyed_by_seed_purpose_and_index() -> None:
    keys = [(0, 1), (0, 2), (1, 1)]
    numbers = sampling_numbers(5, "sample", keys, 9)
    assert torch.equal(sampling_numbers(5, "sample", keys[::-1], 9), numbers.flip(0))
    for other in (sampling_numbers(6, "sample", keys, 9), sampling_numbers(5, "other", keys, 9)):
        assert not (other == numbers).any()
    assert len(numbers.unique()) == numbers.numel()


def test_generation_is_without_dropout_and_leaves_the_mode() -> None:
    config = ModelConfig(dim=16, layers=1, heads=2, dropout=0.5)
    model = TranslationModel(config, 200, 2)
    assert greedy(model, [1, 2]) == greedy(model, [1, 2])
    assert model.training
    model.eval()
    beams(model, [1, 2])
    assert not model.training


@pytest.mark.parametrize(("vocab_size", "count"), [(200, 1), (256, 8), (19, 19), (1000, 5)])
def test_top_tokens_are_topk(vocab_size: int, count: int) -> None:
    scores = torch.randn(7, vocab_size, generator=torch.Generator().manual_seed(0))
    values, tokens = top_tokens(scores, count)
    expected = scores.topk(count)
    assert torch.equal(values, expected.values)
    assert torch.equal(tokens, expected.indices)
