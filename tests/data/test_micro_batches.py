"""Several small batches put together are the same rows, targets and loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xlmtrain.config.model import ModelConfig
from xlmtrain.data.batch import Batch, NumpyBatch, concat, make_batch, next_token_targets, split
from xlmtrain.data.sequences import SequenceBatch, pair_sequences, sentence_sequences, window_sequences
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.text.vocab import EOS, MASK

LENGTH, VOCABULARY = 12, 40
TENSORS = ("tokens", "positions", "languages", "lengths", "target_index", "targets")


def sentence(rng: np.random.Generator, words: int) -> np.ndarray:
    """Ids with their EOS, ``words`` in all."""
    return np.append(rng.integers(20, VOCABULARY, words - 1), EOS)


def masked(rows: SequenceBatch, rng: np.random.Generator) -> NumpyBatch:
    selected = (rng.random(rows.tokens.shape) < 0.3) & (rows.tokens >= 20)
    return NumpyBatch(rows, np.where(selected, MASK, rows.tokens), selected)


def numpy_batches(objective: str) -> list[NumpyBatch]:
    """Three of 2, 1 and 3 rows. Rows of clm and mlm are full in some, padded in others, those of tlm are padded."""
    rng = np.random.default_rng(3)
    made = []
    for number, count in enumerate((2, 1, 3)):
        if objective == "tlm":
            sizes = [5, *rng.integers(2, 5, count - 1)]
            first, second = ([sentence(rng, size) for size in sizes] for _ in range(2))
            rows = pair_sequences(first, second, (0, 1))
        elif number == 1:
            rows = window_sequences(rng.integers(20, VOCABULARY, (count, LENGTH)), 1)
        else:
            rows = sentence_sequences([sentence(rng, size) for size in (LENGTH - 1, 5, 3)[:count]], 0)
        made.append(next_token_targets(rows) if objective == "clm" else masked(rows, rng))
    assert {batch.inputs.shape[1] for batch in made} == {LENGTH}
    return made


def target_places(batch: Batch, first_row: int = 0) -> list[tuple[int, int, int]]:
    """(row, column, token to predict) of every target."""
    index = batch.target_index.tolist()
    return [(first_row + i // LENGTH, i % LENGTH, t) for i, t in zip(index, batch.targets.tolist())]


@pytest.mark.parametrize("objective", ["mlm", "clm", "tlm"])
def test_rows_and_targets_stay_what_they_were(objective: str) -> None:
    joined = make_batch(objective, *concat(numpy_batches(objective)))
    parts = [make_batch(objective, *batch) for batch in numpy_batches(objective)]
    for name in ("tokens", "positions", "languages"):
        assert torch.equal(getattr(joined, name), torch.cat([getattr(part, name) for part in parts])), name
    assert target_places(joined) == [p for part, row in zip(parts, (0, 2, 3)) for p in target_places(part, row)]
    assert joined.nonpad_tokens == sum(part.nonpad_tokens for part in parts)
    assert joined.lengths is not None
    full = [[LENGTH] if part.lengths is None else part.lengths.tolist() for part in parts]
    assert joined.lengths.tolist() == [length for lengths in full for length in lengths]


def test_cut_is_the_reverse_of_join() -> None:
    parts = numpy_batches("tlm")
    for at_once, counts in ((1, [1] * 6), (2, [2, 2, 2]), (4, [4, 2]), (6, [6]), (9, [6])):
        pieces = list(split(concat(parts), at_once))
        assert [len(piece.inputs) for piece in pieces] == counts
        again, whole = (make_batch("tlm", *concat(some)) for some in (pieces, parts))
        assert all(torch.equal(getattr(again, name), getattr(whole, name)) for name in TENSORS)


def test_without_padding_there_are_no_lengths() -> None:
    part = numpy_batches("mlm")[1]
    batch = make_batch("mlm", *concat([part, part]))
    assert batch.lengths is None
    assert batch.nonpad_tokens == 2 * LENGTH


@pytest.mark.parametrize("objective", ["mlm", "clm", "tlm"])
def test_the_loss_is_the_sum_of_the_parts(objective: str) -> None:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(dim=16, layers=2, heads=2, max_positions=LENGTH), VOCABULARY, 2).eval()
    parts = numpy_batches(objective)
    separate = sum(model(make_batch(objective, *part)).item() for part in parts)
    assert separate > 1.0
    assert model(make_batch(objective, *concat(parts))).item() == pytest.approx(separate, rel=1e-6)
