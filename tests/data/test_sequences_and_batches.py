"""Rows of pairs are laid out as the original's; batches say what to predict where."""

from __future__ import annotations

import numpy as np
import torch

from tests.support.oracle import Oracle
from tests.support.tiny import stored
from xlmtrain.data.batch import make_batch, make_causal_batch
from xlmtrain.data.sequences import SequenceBatch, pair_sequences, window_sequences, windows
from xlmtrain.text.vocab import EOS, PAD


def sentences(oracle: Oracle, number: int) -> list[np.ndarray]:
    """One side of the oracle's pairs, each sentence with its EOS at the end and none at the start."""
    tokens, lengths = oracle[f"concat.x{number}"].numpy(), oracle[f"concat.len{number}"].numpy()
    return [tokens[1:length, i] for i, length in enumerate(lengths)]


def test_pair_rows_are_the_oracles(oracle: Oracle) -> None:
    rows = pair_sequences(sentences(oracle, 1), sentences(oracle, 2), (0, 1))
    expected = {key: oracle[f"concat.reset.{key}"].numpy().T for key in ("x", "positions", "langs", "lengths")}
    assert np.array_equal(rows.tokens, expected["x"])
    assert np.array_equal(rows.lengths, expected["lengths"])
    inside = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]
    assert not inside.all()  # the case has padding, of which positions and languages mean nothing
    assert np.array_equal(rows.positions[inside], expected["positions"][inside])
    assert not rows.positions[~inside].any()
    assert np.array_equal(rows.languages[inside], expected["langs"][inside])


def test_positions_stay_below_the_longest_side() -> None:
    """A row padded to twice its length must not read past the position table, which is sized for one side."""
    rows = pair_sequences([np.array([20, EOS]), np.full(30, 21)], [np.array([22, EOS]), np.full(30, 23)], (0, 1))
    assert rows.tokens.shape == (2, 62)
    assert rows.positions.max() == 30


def test_windows_wrap_around() -> None:
    tokens = windows(stored(np.arange(10, dtype=np.uint16)), np.array([0, 7, 16, 5]), 5)
    assert tokens.tolist() == [[0, 1, 2, 3, 4], [7, 8, 9, 0, 1], [6, 7, 8, 9, 0], [5, 6, 7, 8, 9]]
    assert tokens.dtype == np.int64


def padded_rows() -> SequenceBatch:
    tokens = np.array([[1, 20, 21, 22, 1], [1, 23, 1, PAD, PAD]])
    return SequenceBatch(tokens, np.tile(np.arange(5), (2, 1)), np.zeros_like(tokens), np.array([5, 3]))


def test_batch_predicts_the_originals_at_the_chosen_places() -> None:
    rows = padded_rows()
    selected = np.zeros((2, 5), dtype=bool)
    selected[0, 3] = selected[1, 1] = True
    inputs = np.where(selected, 5, rows.tokens)
    batch = make_batch("mlm", rows, inputs, selected, name="mlm.en", rng_key=(3, 1))
    assert batch.target_index.tolist() == [3, 6]
    assert batch.targets.tolist() == [22, 23]
    assert batch.tokens[0, 3] == batch.tokens[1, 1] == 5
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [5, 3]
    assert not batch.causal
    assert (batch.name, batch.rng_key) == ("mlm.en", (3, 1))


def test_batch_of_full_rows_has_no_lengths() -> None:
    rows = window_sequences(np.full((2, 4), 20), 0)
    assert make_batch("mlm", rows, rows.tokens, rows.tokens == 0).lengths is None


def test_causal_batch_predicts_the_next_token_and_nothing_after_the_last() -> None:
    batch = make_causal_batch(padded_rows())
    assert batch.causal
    assert batch.target_index.tolist() == [0, 1, 2, 3, 5, 6]
    assert batch.targets.tolist() == [20, 21, 22, 1, 23, 1]
    assert torch.equal(batch.tokens, torch.from_numpy(padded_rows().tokens))
