"""Several small batches put together are the same rows, targets and loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xlmtrain.config.schema import ModelConfig
from xlmtrain.data.batch import Batch, join, make_batch, make_causal_batch
from xlmtrain.data.rows import Rows, pair_rows, sentence_rows, stream_rows
from xlmtrain.objective import LanguageModel
from xlmtrain.text.vocab import EOS, MASK

LENGTH, VOCABULARY = 12, 40


def sentence(rng: np.random.Generator, words: int) -> np.ndarray:
    """Ids with their EOS, ``words`` in all."""
    return np.append(rng.integers(20, VOCABULARY, words - 1), EOS)


def masked(objective: str, rows: Rows, rng: np.random.Generator, number: int) -> Batch:
    selected = (rng.random(rows.tokens.shape) < 0.3) & (rows.tokens >= 20)
    return make_batch(objective, rows, np.where(selected, MASK, rows.tokens), selected, f"draw {number}", (number, 0))


def batches(objective: str) -> list[Batch]:
    """Three of 2, 1 and 3 rows. Rows of clm and mlm are full in some, padded in others, those of tlm are padded."""
    rng = np.random.default_rng(3)
    made = []
    for number, count in enumerate((2, 1, 3)):
        if objective == "tlm":
            sizes = [5, *rng.integers(2, 5, count - 1)]
            first, second = ([sentence(rng, size) for size in sizes] for _ in range(2))
            rows = pair_rows(first, second, (0, 1))
        elif number == 1:
            rows = stream_rows(rng.integers(20, VOCABULARY, (count, LENGTH)), 1)
        else:
            rows = sentence_rows([sentence(rng, size) for size in (LENGTH - 1, 5, 3)[:count]], 0)
        causal = objective == "clm"
        made.append(
            make_causal_batch(rows, f"{number}", (number, 0)) if causal else masked(objective, rows, rng, number)
        )
    assert {batch.tokens.shape[1] for batch in made} == {LENGTH}
    return made


def target_places(batch: Batch, first_row: int = 0) -> list[tuple[int, int, int]]:
    """(row, column, token to predict) of every target."""
    index = batch.target_index.tolist()
    return [(first_row + i // LENGTH, i % LENGTH, t) for i, t in zip(index, batch.targets.tolist())]


@pytest.mark.parametrize("objective", ["mlm", "clm", "tlm"])
def test_rows_and_targets_stay_what_they_were(objective: str) -> None:
    parts = batches(objective)
    joined = join(parts)
    for name in ("tokens", "positions", "languages"):
        assert torch.equal(getattr(joined, name), torch.cat([getattr(part, name) for part in parts])), name
    assert target_places(joined) == [p for part, row in zip(parts, (0, 2, 3)) for p in target_places(part, row)]
    assert joined.unpadded == sum(part.unpadded for part in parts)
    assert joined.lengths is not None
    full = [[LENGTH] if part.lengths is None else part.lengths.tolist() for part in parts]
    assert joined.lengths.tolist() == [length for lengths in full for length in lengths]
    assert (joined.objective, joined.name, joined.key) == (objective, parts[0].name, (0, 0))


def test_without_padding_there_are_no_lengths() -> None:
    parts = [batches("mlm")[1], batches("mlm")[1]]
    assert join(parts).lengths is None
    assert join(parts).unpadded == 2 * LENGTH


@pytest.mark.parametrize("objective", ["mlm", "clm", "tlm"])
def test_the_loss_is_the_sum_of_the_parts(objective: str) -> None:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(dim=16, layers=2, heads=2, max_positions=LENGTH), VOCABULARY, 2).eval()
    parts = batches(objective)
    separate = sum(model(part).item() for part in parts)
    assert separate > 1.0
    assert model(join(parts)).item() == pytest.approx(separate, rel=1e-6)
    one = parts[2]
    assert model(join([one])).item() == model(one).item()
