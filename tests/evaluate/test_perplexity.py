"""Figures are the original's; sharing the work out does not change them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny import ALONE, CPU, run_processes, tiny_config, write_corpus, write_header
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import ValidationSet, validation_sets
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.evaluate.cloze import sample_predictions
from xlmtrain.evaluate.perplexity import evaluate_perplexity
from xlmtrain.evaluate.validator import Validator
from xlmtrain.interop.xlm.conversion import from_xlm_state_dict
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.vocab import EOS, MASK, PAD, Vocab

OBJECTIVES = {"data.clm": {"de": 1.0}}


def model_of(config: Config, dataset: Dataset) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(config.model, len(dataset.vocab), len(dataset.languages))


def figures_on(distributed: Distributed, data: Path, changes: dict[str, Any] | None = None) -> dict[str, float]:
    config = tiny_config("run", data, {**OBJECTIVES, **(changes or {})})
    dataset = Dataset(data)
    return evaluate_perplexity(model_of(config, dataset), validation_sets(config, dataset), Precision.fp32, distributed)


def test_figures_are_their_formulas(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset, OBJECTIVES), Dataset(tiny_dataset)
    model = model_of(config, dataset)
    sets = validation_sets(config, dataset)
    assert [chosen.name for chosen in sets] == [
        "valid/de_mlm",
        "valid/en_mlm",
        "valid/de-en_tlm",
        "valid/de_clm",
    ]
    figures = evaluate_perplexity(model, sets, Precision.fp32, ALONE)
    model.eval()  # the tiny settings have dropout
    for chosen in sets:
        logits, targets = [], []
        for batch in chosen.batches():
            logits.append(model.logits(batch).detach().double())
            targets.append(batch.targets)
        every, right = torch.cat(logits), torch.cat(targets)
        loss = -every.log_softmax(dim=1)[torch.arange(len(right)), right].mean().item()
        assert figures[f"{chosen.name}_ppl"] == pytest.approx(math.exp(loss), rel=1e-5)
        hits = (every.argmax(dim=1) == right).double().mean().item()
        assert figures[f"{chosen.name}_acc"] == pytest.approx(100 * hits)
    for what in ("ppl", "acc"):  # the arithmetic mean over languages
        mean = (figures[f"valid/de_mlm_{what}"] + figures[f"valid/en_mlm_{what}"]) / 2
        assert figures[f"valid/mlm_{what}"] == pytest.approx(mean)
        assert figures[f"valid/tlm_{what}"] == figures[f"valid/de-en_tlm_{what}"]
    assert len(figures) == 2 * (4 + 3)


def test_evaluation_leaves_the_model_as_it_was(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset), Dataset(tiny_dataset)
    model, sets = model_of(config, dataset), validation_sets(config, dataset)
    for training in (True, False):
        model.train(training)
        first = evaluate_perplexity(model, sets, Precision.fp32, ALONE)
        assert model.training == training
        assert first == evaluate_perplexity(model, sets, Precision.fp32, ALONE)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_two_processes_find_what_one_finds(tiny_dataset: Path, tmp_path: Path) -> None:
    alone = figures_on(ALONE, tiny_dataset)
    first, second = run_processes(2, figures_on, tmp_path, tiny_dataset)
    assert first == second
    assert first.keys() == alone.keys()
    for name, value in alone.items():
        assert first[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("objective", ["mlm", "tlm", "clm"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_shares_are_all_of_the_batches(tiny_dataset: Path, objective: str, world_size: int) -> None:
    config = tiny_config("run", tiny_dataset, {"evaluate.pairs_per_batch": 4})
    dataset = Dataset(tiny_dataset)
    chosen = ValidationSet(config, dataset, "valid", objective, "de-en" if objective == "tlm" else "de")
    whole = list(chosen.batches())
    parts = [list(chosen.batches(rank, world_size)) for rank in range(world_size)]
    assert len(whole) == sum(len(part) for part in parts) > world_size
    for number, batch in enumerate(whole):
        assert_same(batch, parts[number % world_size][number // world_size])


def assert_same(a: Batch, b: Batch) -> None:
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.target_index, b.target_index)
    assert torch.equal(a.targets, b.targets)


def test_masks_are_the_same_each_time_and_do_not_depend_on_the_batch_size(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    found = []
    for batch_tokens in (16, 64, 64, 1000):
        config = tiny_config("run", tiny_dataset, {"evaluate.batch_tokens": batch_tokens})
        batches = list(ValidationSet(config, dataset, "valid", "mlm", "de").batches())
        found.append((torch.cat([b.tokens for b in batches]), torch.cat([b.targets for b in batches])))
    for tokens, targets in found[1:]:
        assert torch.equal(tokens, found[0][0])
        assert torch.equal(targets, found[0][1])


def test_stream_set_reads_the_whole_text_once_behind_a_filler(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    text = dataset.corpus("valid.de").ids[:]
    chosen = ValidationSet(tiny_config("run", tiny_dataset), dataset, "valid", "clm", "de")
    stream = torch.cat([batch.tokens for batch in chosen.batches()]).flatten().numpy()
    assert len(stream) % 16 == 0
    filler = len(stream) - len(text) + 1  # the last token is never read, as nothing follows it
    assert 1 <= filler <= 16
    assert (stream[:filler] == EOS).all()
    assert np.array_equal(stream[filler:], text[:-1])


def test_masked_sets_hide_what_they_ask_for(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset), Dataset(tiny_dataset)
    targets = places = 0
    for objective, key in (("mlm", "en"), ("tlm", "de-en")):
        for batch in ValidationSet(config, dataset, "valid", objective, key).batches():
            assert (batch.tokens.flatten()[batch.target_index] == MASK).all()  # no random words, none kept
            length = batch.tokens.shape[1]
            lengths = torch.full((len(batch.tokens),), length) if batch.lengths is None else batch.lengths
            row, column = batch.target_index // length, batch.target_index % length
            assert (column > 0).all()
            assert (column < lengths[row] - 1).all()
            assert len(row.unique()) == len(batch.tokens)  # at least one a row
            assert not (batch.targets == PAD).any()
            targets, places = targets + len(row), places + int((lengths - 2).sum())
    assert 0.1 < targets / places < 0.25  # 15 %, and one where there would be none


def test_a_row_without_a_target_gets_one_anywhere_in_it(tiny_dataset: Path) -> None:
    config = tiny_config("run", tiny_dataset, {"mask.prob": 1e-12, "data.sequence_length": 4})
    batches = list(ValidationSet(config, Dataset(tiny_dataset), "valid", "mlm", "de").batches())
    assert all(torch.equal(batch.target_index // 4, torch.arange(len(batch.tokens))) for batch in batches)
    assert {int(place) % 4 for batch in batches for place in batch.target_index} == {1, 2}


def test_pair_set_takes_every_pair_that_fits_the_position_table(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    config = tiny_config("run", tiny_dataset, {"model.max_positions": 16, "data.max_sentence_length": 2})
    config.model.max_positions = 9  # valid pairs have up to 12 words; training's limit does not bind here
    lengths = dataset.pair("valid", "de-en")[0].lengths()
    fitting = ((lengths > 0) & (lengths + 2 <= 9)).sum()
    assert 0 < fitting < (lengths > 0).sum()
    batches = list(ValidationSet(config, dataset, "valid", "tlm", "de-en").batches())
    assert sum(len(batch.tokens) for batch in batches) == fitting
    assert max(int(batch.positions.max()) for batch in batches) < 9


def test_max_tokens_reads_the_beginning(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    config = tiny_config("run", tiny_dataset, {"evaluate.max_tokens": 40})
    stream = ValidationSet(config, dataset, "valid", "mlm", "de")
    assert sum(batch.tokens.numel() for batch in stream.batches()) == 48
    pairs = ValidationSet(config, dataset, "valid", "tlm", "de-en")
    assert 0 < sum(len(batch.tokens) for batch in pairs.batches()) < 6


def test_sets_are_those_of_what_is_trained_and_is_there(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    config = tiny_config("run", tiny_dataset, {"data.mlm": {"de": 1.0, "en": 0.0}, **OBJECTIVES})
    assert [s.name for s in validation_sets(config, dataset)] == ["valid/de_mlm", "valid/de-en_tlm", "valid/de_clm"]
    assert validation_sets(config, dataset, "test") == []


@pytest.mark.parametrize("sentences", [[], [[]]])
def test_a_set_with_nothing_to_predict_is_refused(tmp_path: Path, sentences: list[list[int]]) -> None:
    """Its perplexity would be 1, the best there is."""
    vocab = Vocab([("w", 1)])
    vocab.write(tmp_path / "vocab")
    sides = {
        f"valid.de-en.{language}": write_corpus(tmp_path, f"valid.de-en.{language}", sentences)
        for language in ("de", "en")
    }
    mono = {"valid.de": write_corpus(tmp_path, "valid.de", [])}
    write_header(tmp_path, vocab, {**sides, **mono})
    config, dataset = tiny_config("run", tmp_path), Dataset(tmp_path)
    for objective, key in (("mlm", "de"), ("clm", "de"), ("tlm", "de-en")):
        with pytest.raises(DataError, match=rf"valid\.{key}"):
            ValidationSet(config, dataset, "valid", objective, key)


def test_unknown_metric_is_refused_with_those_there_are(tiny_dataset: Path) -> None:
    dataset = Dataset(tiny_dataset)
    for metric in ("valid/mlm_ppl", "valid/de_mlm_acc", "valid/de-en_tlm_ppl", "valid/tlm_acc"):
        Validator(tiny_config("run", tiny_dataset, {"evaluate.metric": metric}), dataset)
    with pytest.raises(ConfigError) as caught:
        Validator(tiny_config("run", tiny_dataset, {"evaluate.metric": "valid/fr_mlm_ppl"}), dataset)
    assert "evaluate.metric: 'valid/fr_mlm_ppl' is none of valid/de-en_tlm_acc, " in str(caught.value)


def test_samples_show_truth_and_guess(tiny_dataset: Path) -> None:
    config, dataset = tiny_config("run", tiny_dataset), Dataset(tiny_dataset)
    model = model_of(config, dataset)
    with torch.no_grad():
        model.head.bias[20] = 100.0  # the model says g whatever it reads
    chosen = ValidationSet(config, dataset, "valid", "mlm", "de")
    lines = sample_predictions(model, chosen, dataset.vocab, 7, Precision.fp32, CPU).splitlines()
    assert [line.partition(". ")[0] for line in lines] == ["1", "2", "3", "4", "5", "6", "7"]
    batch = next(iter(chosen.batches()))
    for row, line in enumerate(lines[:4]):
        right = line.count("**[g]**")
        truths = batch.targets[batch.target_index // 16 == row]
        assert right == int((truths == 20).sum())
        assert line.count(" > g]") == len(truths) - right
    assert "&lt;/s>" in lines[0]  # Markdown would take it for a tag
    assert "special1" not in "".join(lines)
    assert model.training


def test_figures_of_the_oracle(reference: dict[str, Any], shared: Path, tmp_path: Path) -> None:
    """Perplexity and accuracy that the original measured on its texts, on its streams, pairs and masks."""
    source = shared / "reference"
    vocab = Vocab.read(source / "data" / "vocab")
    vocab.write(tmp_path / "vocab")
    corpora = {}
    for file in sorted((source / "text").iterdir()):
        sentences = [vocab.encode(line.split()) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
        corpora[file.name] = write_corpus(tmp_path, file.name, sentences)
    write_header(tmp_path, vocab, corpora)
    dataset = Dataset(tmp_path)
    for name, stored in reference["binarized"].items():  # the same ids to begin with
        assert np.array_equal(dataset.corpus(name).ids[:], stored["sentences"].numpy())

    config = tiny_config("run", tmp_path, {"model.max_positions": 512, "evaluate.pairs_per_batch": 4})
    config = replace(config, model=ModelConfig(dim=64, layers=2, heads=4))
    model = LanguageModel(config.model, len(vocab), 2)
    model.load_state_dict(from_xlm_state_dict(reference["training"]["state_dict_after"]))
    expected = reference["evaluation"]
    for split in ("valid", "test"):
        names = {"de_mlm": "de_mlm", "en_mlm": "en_mlm", "de-en_tlm": "de_en_mlm", "de_clm": "de_clm"}
        keys = [ours.rsplit("_", 1) for ours in names]
        sets = [ValidationSet(config, dataset, split, objective, key) for key, objective in keys]
        figures = evaluate_perplexity(model, sets, Precision.fp32, ALONE)
        for ours, theirs in {**names, "mlm": "mlm"}.items():
            assert figures[f"{split}/{ours}_acc"] == pytest.approx(expected[f"{split}_{theirs}_acc"], abs=1e-9)
            assert figures[f"{split}/{ours}_ppl"] == pytest.approx(expected[f"{split}_{theirs}_ppl"], rel=2e-6)
