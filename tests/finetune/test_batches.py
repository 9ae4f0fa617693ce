"""What the classifier is given: rows, labels, and which examples make up each step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny import ALONE
from tests.support.toy import toy_model
from xlmtrain.config.evaluate import Pooling
from xlmtrain.config.finetune import TaskConfig
from xlmtrain.config.train import Precision
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.classification_data import Encoded, Example, encode
from xlmtrain.finetune.batches import evaluation_batches, training_batch
from xlmtrain.finetune.classifier import TaskModel
from xlmtrain.finetune.evaluation import evaluate_classifier
from xlmtrain.finetune.tasks import Classification
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.text.vocab import EOS, PAD


def encoded(
    files: dict[str, list[Example]], saved: PretrainedBundle, labels: list[str], most: int
) -> dict[str, Encoded]:
    return encode("task", files, saved.pipeline(), saved.languages, saved.config.max_positions, labels.index, most)


def two_labels() -> Classification:
    task = Classification(TaskConfig())
    task.labels = ["n", "y"]
    return task


def numbered(count: int, language: int, first: int) -> Encoded:
    """Examples with a label each."""
    return Encoded([np.array([20, EOS])] * count, np.arange(first, first + count), language)


def test_a_text_and_a_pair_as_the_original_reads_them(tiny_dataset: Path) -> None:
    """One EOS between the two, positions that run on, one language; the label stands at the first place."""
    saved = toy_model(tiny_dataset)
    a, b, c = (saved.vocab.id(word) for word in "abc")
    pair = encoded({"en": [Example("y", ("a b", "c")), Example("n", ("c", "c"))]}, saved, ["n", "y"], 256)["en"]
    ((batch, _),) = evaluation_batches(pair, 0, 1)
    assert batch.tokens.tolist() == [[EOS, c, EOS, c, EOS, PAD], [EOS, a, b, EOS, c, EOS]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert batch.languages.tolist() == [[1] * 6] * 2
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [5, 6]
    assert batch.target_index.tolist() == [0, 6]
    assert batch.targets.tolist() == [0, 1]
    text = encoded({"de": [Example("y", ("a b",))]}, saved, ["n", "y"], 256)["de"]
    assert text.ids[0].tolist() == [a, b, EOS]
    assert text.language == 0


def test_long_texts_are_cut_to_fit(tiny_dataset: Path) -> None:
    saved = toy_model(tiny_dataset)
    long = " ".join("a" * 100)
    (single,) = encoded({"de": [Example("y", (long,))]}, saved, ["y"], 256)["de"].ids
    (pair,) = encoded({"de": [Example("y", (long, long))]}, saved, ["y"], 256)["de"].ids
    (short,) = encoded({"de": [Example("y", (long, long))]}, saved, ["y"], 4)["de"].ids
    assert len(single) + 1 == saved.config.max_positions
    assert saved.config.max_positions - 2 < len(pair) + 1 <= saved.config.max_positions
    assert np.flatnonzero(short == EOS).tolist() == [4, 9]


def test_a_language_that_the_model_does_not_know(tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="fr is none of the model's languages, de, en"):
        encoded({"fr": [Example("y", ("a",))]}, toy_model(tiny_dataset), ["y"], 256)


@pytest.mark.parametrize("world_size", [1, 3])
def test_every_example_once_an_epoch(world_size: int) -> None:
    """Whatever the number of processes, also in batches that go through an epoch's end; in another order each time."""
    files = [numbered(7, 0, 0), numbered(6, 1, 7)]
    seen = []
    for step in range(13):  # 4 x 13: four epochs
        shares = [training_batch(files, 5, step, 4, rank, world_size)[0] for rank in range(world_size)]
        order = sorted((place, int(label)) for r, s in enumerate(shares) for place, label in enumerate(s.targets))
        assert len(order) == 4
        for batch in shares:
            assert torch.equal(batch.languages[:, 0], (batch.targets >= 7).long())
        step_labels = [0] * 4
        for rank, share in enumerate(shares):
            step_labels[rank::world_size] = share.targets.tolist()
        seen += step_labels
    epochs = [seen[i : i + 13] for i in range(0, 52, 13)]
    assert all(Counter(epoch) == Counter(range(13)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    one = [int(label) for step in range(13) for label in training_batch(files, 5, step, 4, 0, 1)[0].targets]
    assert seen == one


def test_the_order_is_the_seeds() -> None:
    files = [numbered(50, 0, 0)]
    first, again, other = (training_batch(files, seed, 0, 50, 0, 1)[0].targets.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_evaluation_shares_every_example_out_once() -> None:
    rng = np.random.default_rng(0)
    ids = [np.array([20] * int(n) + [EOS]) for n in rng.integers(1, 2000, size=40)]
    file = Encoded(ids, np.arange(40), 0)
    batches = [list(evaluation_batches(file, rank, 3)) for rank in range(3)]
    labels = [label for share in batches for batch, _ in share for label in batch.targets.tolist()]
    assert sorted(labels) == list(range(40))
    assert all(batch.tokens.numel() <= 8192 for share in batches for batch, _ in share)


def test_each_batch_of_an_evaluation_is_progress(tiny_dataset: Path) -> None:
    """A long test set is no hang."""
    model = TaskModel(toy_model(tiny_dataset), two_labels(), dropout=0.0, pooling=Pooling.first)
    file = Encoded([np.array([20, EOS])] * 5000, np.arange(5000) % 2, 0)
    alive: list[bool] = []
    found = evaluate_classifier(model, {"de": file}, Precision.fp32, ALONE, lambda: alive.append(True))
    assert found["de"].targets == 5000
    assert len(alive) == len(list(evaluation_batches(file, 0, 1))) > 1


@pytest.mark.parametrize("pooling", Pooling)
def test_the_head_reads_a_text_as_if_it_were_alone(tiny_dataset: Path, pooling: Pooling) -> None:
    """The first state or the mean of all, whatever the padding."""
    saved = toy_model(tiny_dataset)
    examples = [Example("n", ("a b c d",)), Example("y", ("e",)), Example("n", ("f g",))]
    file = encoded({"en": examples}, saved, ["n", "y"], 256)["en"]
    torch.manual_seed(0)
    model = TaskModel(saved, two_labels(), dropout=0.0, pooling=pooling).eval()
    ((batch, _),) = evaluation_batches(file, 0, 1)
    rows: list[int] = []
    hook = model.encoder.blocks[-1].ffn.register_forward_hook(lambda _, __, out: rows.append(out[..., 0].numel()))
    found = model.logits(batch)
    hook.remove()
    assert rows == [3 if pooling is Pooling.first else batch.tokens.numel()]
    shortest_first = sorted(file.ids, key=len)
    for row, ids in enumerate(shortest_first):
        tokens = torch.tensor([[EOS, *ids]])
        states = model.encoder(tokens, torch.arange(tokens.shape[1])[None], torch.ones_like(tokens))[0]
        vector = states[0] if pooling is Pooling.first else states.mean(dim=0)
        torch.testing.assert_close(found[row], model.head(vector))
