"""Encoder-decoders trained on a mixture: resumed, on several processes, with and without a language model's head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny import run_processes, tiny_config
from tests.support.training import assert_same_run, checkpoint, records, state, train_alone, train_on
from xlmtrain.config.schema import Config
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.model.translation_model import TranslationModel, build_model
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.train.checkpoint_io import read_checkpoint

MT = {"data.tlm": {}, "data.mlm": {}, "data.mt": {"de-en": 1.0, "en-de": 1.0}, "evaluate.metric": "valid/de-en_mt_acc"}
MIXED = {**MT, "data.mlm": {"de": 1.0}, "data.dae": {"de": 0.5, "en": 0.5}, "train.label_smoothing": 0.1}


@pytest.fixture(scope="module")
def straight(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps without a stop."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert train_alone(tiny_config(run, tiny_dataset, MIXED)).status == "done"
    return run


def test_stopped_and_resumed_is_the_straight_run(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    position = state(straight, 20)["progress"]["sampler_state"]
    assert set(position) == {"mlm.de", "mt.de-en", "mt.en-de", "dae.de", "dae.en"}
    config = tiny_config(tmp_path / "run", tiny_dataset, MIXED)
    for steps in (1, 6):
        assert train_alone(config, stop_after=steps).status == "preempted"
    assert train_alone(config).status == "done"
    assert_same_run(straight, config.run, 20)


def starts(distributed: Distributed, config: Config) -> str:
    return train_on(distributed, config).status


@pytest.mark.parametrize(
    "changes", [{}, {"model.share_encoder_decoder_embeddings": True, "model.tie_embeddings": False}]
)
def test_two_processes_train_as_one(tiny_dataset: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """A mixture in which a process often has no batch for the decoder, or none for the language model."""
    without_dropout = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "train.steps": 5}
    one, two = (tiny_config(tmp_path / name, tiny_dataset, {**MIXED, **without_dropout, **changes}) for name in "ab")
    assert train_alone(one).status == "done"
    assert run_processes(2, starts, tmp_path, two) == ["done", "done"]
    ours, theirs = (read_checkpoint(checkpoint(config.run, 5)).model for config in (one, two))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        if not name.endswith(("qkv.bias", "key_value.bias")):  # a key's gradient is rounding errors, enlarged by Adam
            torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_validation_measures_each_direction(straight: Path) -> None:
    first, *_, last = [record for record in records(straight) if "valid/de-en_mt_ppl" in record]
    for name in ("de-en_mt", "en-de_mt", "mt", "de_dae", "en_dae", "de_mlm"):
        assert last[f"valid/{name}_ppl"] < 0.8 * first[f"valid/{name}_ppl"]
        assert last[f"valid/{name}_acc"] > first[f"valid/{name}_acc"]


@pytest.mark.parametrize("changes", [MT, MIXED])
def test_every_batch_gives_every_trained_weight_a_gradient(tiny_dataset: Path, changes: dict[str, Any]) -> None:
    """Otherwise DistributedDataParallel waits for ever, and the optimizer treats a weight differently by processes."""
    config, dataset = tiny_config("run", tiny_dataset, changes), Dataset(tiny_dataset)
    model = build_model(config.model, config.data, len(dataset.vocab), 2, config.train.label_smoothing)
    assert isinstance(model, TranslationModel)
    assert model.head.bias.requires_grad is (changes is MIXED)
    loader = Loader(config, dataset)
    batches = [batch for step in range(4) for batch in loader.make(step, loader.sampler.initial_state()).batches]
    assert {batch.objective for batch in batches} == config.data.weights.keys()
    for batch in batches:
        model.zero_grad()
        model(batch).backward()
        missing = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
        assert not missing, batch.objective
        decoder = sum(float(w.grad.abs().sum()) for name, w in model.named_parameters() if name.startswith("decoder"))
        assert (decoder > 0) is (batch.source is not None)
