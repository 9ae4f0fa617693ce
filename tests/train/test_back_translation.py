"""Back-translation in a mixture: its sources, resumed and killed runs, several processes, weights that change."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.starts import Forked, finish, settings
from tests.support.tiny import ALONE, WORDS, phase, run_processes, tiny_config
from tests.support.training import GradientRecorder, assert_same_run, checkpoint, records, state, train_alone, train_on
from xlmtrain.config.data import BackTranslationConfig
from xlmtrain.config.optim import Schedule
from xlmtrain.config.schema import Config
from xlmtrain.config.train import Precision
from xlmtrain.data.batch import Batch, encoder_input, make_seq2seq_batch
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.loader import Loader
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.errors import ConfigError
from xlmtrain.generate.back_translation import back_translate
from xlmtrain.generate.greedy import greedy_search
from xlmtrain.model.translation_model import TranslationModel, build_model
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.vocab import EOS, PAD, SPECIALS
from xlmtrain.train.checkpoint_io import read_checkpoint
from xlmtrain.train.parallel import ParallelModel
from xlmtrain.train.step import TrainStep

BT = {"data.mlm": {}, "data.tlm": {}, "data.bt": {"de-en": 1.0, "en-de": 1.0}, "evaluate.metric": "valid/de-en_mt_acc"}
MIXED = {**BT, "data.dae": {"de": 1.0, "en": 1.0}, "data.mt": {"en-de": 0.5}, "data.loss_weight": {"dae": "0:1,16:0.2"}}
ROUND_TRIP = {"evaluate.round_trip": 10, "evaluate.metric": "valid/round_trip_bleu"}
SAMPLED = {**MIXED, **ROUND_TRIP, "bt.temperature": 1.0}
KEPT = {**SAMPLED, "bt.steps_per_translation": 3}


def model_of(config: Config, data: Path) -> TranslationModel:
    """A model with random weights, whose translations have many lengths and depend on the source and its language."""
    torch.manual_seed(0)
    model = build_model(config.model, config.data, len(Dataset(data).vocab), 2)
    assert isinstance(model, TranslationModel)
    with torch.no_grad():
        model.decoder_head.bias[EOS] += 1
        model.encoder.language_embeddings.weight *= 4
        for name, weight in model.named_parameters():
            if name.startswith("decoder.blocks") and weight.ndim == 2:
                weight *= 3
    return model


def first_batches(config: Config, data: Path, rank: int = 0, world_size: int = 1) -> list[Batch]:
    loader = Loader(config, Dataset(data), rank, world_size)
    return loader.make(3, loader.sampler.initial_state()).batches


def translated(model: TranslationModel, config: Config, batches: Sequence[Batch]) -> list[Batch]:
    return [back_translate(model, batch, config.bt, 0, 3, torch.device("cpu")) for batch in batches]


def sources(batches: Sequence[Batch]) -> dict[tuple[int, ...], list[int]]:
    """Target -> source, without padding."""
    found = {}
    for batch in batches:
        assert batch.source is not None
        for target, source in zip(batch.tokens.tolist(), batch.source.tokens.tolist()):
            found[tuple(i for i in target if i != PAD)] = [i for i in source if i != PAD]
    return found


def test_sources_are_translations_of_the_targets_into_the_other_language(tiny_dataset: Path) -> None:
    config = tiny_config("run", tiny_dataset, BT)
    model, batches = model_of(config, tiny_dataset).train(), first_batches(config, tiny_dataset)
    result = translated(model, config, batches)
    assert model.training
    names = {batch.name.partition(",")[0] for batch in batches}
    assert names == {"bt.de-en", "bt.en-de"}
    for before, after in zip(batches, result):
        into, read = ("de", "en") if "de-en" in after.name else ("en", "de")
        assert after.source is not None
        for field in ("tokens", "targets", "target_index", "languages", "name", "rng_key"):
            assert getattr(before, field) is getattr(after, field)
        assert set(after.languages.flatten().tolist()) == {("de", "en").index(read)}
        assert set(after.source.languages.flatten().tolist()) == {("de", "en").index(into)}
        words = [i - len(SPECIALS) for i in after.tokens.flatten().tolist() if i >= len(SPECIALS)]
        assert {word // WORDS for word in words} == {("de", "en").index(read)}
        for target, source in sources([after]).items():
            one = encoder_input(sentence_sequences([np.array(target[1:])], int(after.languages[0, 0])))
            limits = torch.tensor([min(int(1.3 * len(target) + 5), 32)])
            alone = greedy_search(model, one, int(after.source.languages[0, 0]), limits)
            assert source == [EOS, *alone[0].tolist()]
            assert not set(source[1:-1]) & set(range(len(SPECIALS)))
    assert len({len(source) for source in sources(result).values()}) > 3


@pytest.mark.parametrize("search", [{}, {"bt.temperature": 1.5}, {"bt.beam": 3}])
def test_translations_depend_on_neither_processes_nor_micro_batches(tiny_dataset: Path, search: dict[str, Any]) -> None:
    config = tiny_config("run", tiny_dataset, {**BT, **search})
    model, whole = model_of(config, tiny_dataset), first_batches(config, tiny_dataset)
    expected = sources(translated(model, config, whole))
    for world_size in (2, 4):
        parts = [b for rank in range(world_size) for b in first_batches(config, tiny_dataset, rank, world_size)]
        assert sources(translated(model, config, parts)) == expected
    for size in (16, 150, 1000):
        cut = replace(config, train=replace(config.train, micro_batch_tokens=size))
        assert sources(translated(model, config, first_batches(cut, tiny_dataset))) == expected


def test_a_micro_batch_is_translated_into_one_language(tiny_dataset: Path) -> None:
    changes = {"train.batch_tokens": 64 * 32, "train.micro_batch_tokens": 1000}
    batches = first_batches(tiny_config("run", tiny_dataset, {**BT, **changes}), tiny_dataset)
    assert len(batches) < 32
    assert {len(batch.source.languages.unique()) for batch in batches if batch.source is not None} == {1}


def test_equal_sentences_of_two_languages_have_translations_of_their_own(tiny_dataset: Path) -> None:
    config = tiny_config("run", tiny_dataset, BT)
    torch.manual_seed(0)
    model = TranslationModel(config.model, len(Dataset(tiny_dataset).vocab), 3)
    with torch.no_grad():
        model.encoder.language_embeddings.weight.normal_(std=3.0)
        model.decoder_head.bias[EOS] -= 5
        for name, weight in model.named_parameters():
            if name.startswith("decoder.blocks") and weight.ndim == 2:
                weight *= 3
    ids = [np.array([20, 21, 22, EOS])]
    batch = make_seq2seq_batch("bt", sentence_sequences(ids, 2), sentence_sequences(ids, 0))
    batches = [batch, replace(batch, languages=torch.ones_like(batch.languages))]
    device, known = torch.device("cpu"), dict[Any, Any]()
    alone = [sources([back_translate(model, one, config.bt, 0, 0, device)]) for one in batches]
    assert alone[0] != alone[1]
    assert [sources([back_translate(model, one, config.bt, 0, 0, device, known)]) for one in batches] == alone


def test_sampled_translations_are_new_at_every_step_and_seed(tiny_dataset: Path) -> None:
    config = tiny_config("run", tiny_dataset, {**BT, "bt.temperature": 1.0})
    model, batches = model_of(config, tiny_dataset), first_batches(config, tiny_dataset)

    def drawn(seed: int, step: int) -> dict[tuple[int, ...], list[int]]:
        return sources([back_translate(model, b, config.bt, seed, step, torch.device("cpu")) for b in batches])

    found = [drawn(0, 0), drawn(0, 0), drawn(0, 1), drawn(1, 0)]
    assert found[0] == found[1]
    for other in found[2:]:
        assert sum(found[0][target] != other[target] for target in other) > 0.8 * len(other)


def test_a_translation_that_never_ends_stops_at_its_limit(tiny_dataset: Path) -> None:
    """Sentences as long as the position table, and a model that never writes ``</s>``; then one that writes nothing."""
    changes = {"data.max_sentence_length": 30, "data.sub_batch_tokens": 64}
    config = tiny_config("run", tiny_dataset, {**BT, **changes})
    model = model_of(config, tiny_dataset)
    words = np.arange(14, 44)
    for length in (30, 5):
        sequences = sentence_sequences([np.append(words[:length], EOS)], 1)
        source = sequences._replace(languages=np.zeros_like(sequences.languages))
        batch = make_seq2seq_batch("bt", source, sequences)
        for bias, expected in ((-1e9, min(int(1.3 * (length + 2) + 5), 32)), (1e9, 2)):
            with torch.no_grad():
                model.decoder_head.bias[EOS] = bias
            result = translated(model, config, [batch])[0]
            assert result.source is not None
            assert result.source.tokens.shape == (1, expected)
            assert int(result.source.tokens[0, -1]) == EOS
            assert torch.isfinite(model(result))


def test_steps_in_a_row_train_on_the_same_translations(tiny_dataset: Path) -> None:
    config = tiny_config("run", tiny_dataset, KEPT)
    model, loader = model_of(config, tiny_dataset), Loader(config, Dataset(tiny_dataset))
    step = TrainStep(
        config, ParallelModel(model), torch.optim.AdamW(model.parameters(), 0.01, fused=True), Precision.fp32, ALONE
    )
    position, translations, count, others = loader.sampler.initial_state(), [], 0, set()
    for number in range(7):
        batch = loader.make(number, position)
        step(batch, batch.targets)  # replaces the sources
        position = batch.sampler_state
        translations.append(sources([one for one in batch.batches if one.objective == "bt"]))
        rest = [one for one in batch.sub_batches if not one[0].startswith("bt.")]
        count, others = count + len(rest), others | set(rest)
    for first in (0, 3):
        assert translations[first] == translations[first + 1] == translations[first + 2]
    assert len({frozenset(translations[number]) for number in (0, 3, 6)}) == 3
    assert count == len(others) > 0  # all else is new at each step


@pytest.fixture(scope="module")
def straight(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps without a stop."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert train_alone(tiny_config(run, tiny_dataset, SAMPLED)).status == "done"
    return run


def test_stopped_and_resumed_is_the_straight_run(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    position = state(straight, 20)["progress"]["sampler_state"]
    assert set(position) == {"mt.en-de", "dae.de", "dae.en", "bt.de-en", "bt.en-de"}
    config = tiny_config(tmp_path / "run", tiny_dataset, SAMPLED)
    for steps in (1, 6):
        assert train_alone(config, stop_after=steps).status == "preempted"
    assert train_alone(config).status == "done"
    assert_same_run(straight, config.run, 20)


def test_translations_to_train_on_again_outlive_a_stop(tiny_dataset: Path, tmp_path: Path) -> None:
    whole, parts = (tiny_config(tmp_path / name, tiny_dataset, KEPT) for name in "ab")
    assert train_alone(whole).status == "done"
    for steps in (1, 6):  # the second stop, after 7 steps, is one step into its three
        assert train_alone(parts, stop_after=steps).status == "preempted"
    assert sum(map(len, state(parts.run, 7)["back_translations"])) > 10
    assert train_alone(parts).status == "done"
    assert_same_run(whole.run, parts.run, 20)


def test_the_run_measures_its_generating_and_translation_both_ways(straight: Path) -> None:
    steps = [record for record in records(straight, timed=True) if "train/loss" in record]
    assert all(0 <= record["speed/generate_share"] < 1 for record in steps)
    assert sum(record["speed/generate_share"] for record in steps) > 0.5
    assert [record["train/dae_loss_weight"] for record in steps[:17:8]] == pytest.approx([1, 0.6, 0.2])
    assert "train/bt_loss" in {name for record in steps for name in record}
    (last,) = [record for record in records(straight) if record["step"] == 20 and "valid/de-en_mt_ppl" in record]
    assert {"valid/en-de_mt_ppl", "valid/de_dae_ppl", "valid/en-de_round_trip_bleu"} <= last.keys()
    assert 0 <= last["valid/round_trip_bleu"] <= 100


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_while_generating(tiny_dataset: Path, tmp_path: Path, ranks: int) -> None:
    """The step is taken again, with the same translations."""
    changes = {name.replace(".", "__"): value for name, value in SAMPLED.items()}
    whole, killed = (settings(tmp_path / name, tiny_dataset, 15, **changes) for name in ("whole", "killed"))
    finish(whole, ranks)
    with Forked(killed, ranks, fault="generate:12:0:kill") as start:
        assert start.wait()[0] == -signal.SIGKILL
    assert not checkpoint(killed.run, 15).exists()
    finish(killed, ranks)
    assert_same_run(whole.run, killed.run, 15)


def starts(distributed: Distributed, config: Config) -> str:
    return train_on(distributed, config).status


@pytest.mark.parametrize("more", ["steps", "phase"])
def test_a_finished_run_is_extended(tiny_dataset: Path, tmp_path: Path, more: str) -> None:
    """Its last two of 20 steps share translations with a third one: that of more steps, not that of a new phase."""
    changes = {**KEPT, "optim.schedule": Schedule.constant}
    whole, extended = (tiny_config(tmp_path / name, tiny_dataset, changes) for name in "ab")
    assert train_alone(extended).status == "done"
    for config in (whole, extended):
        if more == "steps":
            config.train.steps = 24
        else:
            config.phases = [phase("begin"), phase("more", 4)]
        assert train_alone(config).status == "done"
    states = [state(config.run, 24)["progress"]["sampler_state"] for config in (whole, extended)]
    assert states[0] == states[1]
    weights = [(checkpoint(config.run, 24) / "model.safetensors").read_bytes() for config in (whole, extended)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("changes", "alone"), [(SAMPLED, 0), (KEPT, 4)])
def test_two_processes_train_as_one(tiny_dataset: Path, tmp_path: Path, changes: dict[str, Any], alone: int) -> None:
    """Also if the first steps had one process, and translations are trained on by two that one has made."""
    without_dropout = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "train.steps": 5}
    one, two = (tiny_config(tmp_path / name, tiny_dataset, {**changes, **without_dropout}) for name in "ab")
    assert train_alone(one).status == "done"
    assert not alone or train_alone(two, stop_after=alone).status == "preempted"
    assert run_processes(2, starts, tmp_path, two) == ["done", "done"]
    ours, theirs = (read_checkpoint(checkpoint(config.run, 5)).model for config in (one, two))
    for name, weight in ours.items():
        if not name.endswith(("qkv.bias", "key_value.bias")):  # a key's gradient is rounding errors, enlarged by Adam
            torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def gradient(config: Config, data: Path, step: int) -> list[torch.Tensor]:
    model = model_of(config, data)
    optimizer = GradientRecorder(model.parameters(), lr=1.0)
    loader = Loader(config, Dataset(data))
    batch = loader.make(step, loader.sampler.initial_state())
    TrainStep(config, ParallelModel(model), optimizer, Precision.fp32, ALONE)(batch, batch.targets)
    return optimizer.seen


def test_the_loss_has_its_weight_at_the_step_and_nothing_is_drawn_at_zero(tiny_dataset: Path) -> None:
    still = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "optim.clip_grad_norm": 0.0}
    weight = {"data.loss_weight": {"dae": "0:1,10:0.5,20:0"}}
    alone = {**BT, **still, "data.bt": {}, "data.dae": {"de": 1.0, "en": 1.0}, "data.mlm": {"de": 1e-9}}
    plain, weighted = (tiny_config("run", tiny_dataset, {**alone, **more}) for more in ({}, weight))
    for step, factor in ((0, 1.0), (5, 0.75), (15, 0.25)):
        for a, b in zip(gradient(plain, tiny_dataset, step), gradient(weighted, tiny_dataset, step)):
            torch.testing.assert_close(b, a * factor)
    config = tiny_config("run", tiny_dataset, {**MIXED, "data.loss_weight": {"dae": "0:1,20:0", "mt": "0"}})
    loader = Loader(config, Dataset(tiny_dataset))
    state, seen = loader.sampler.initial_state(), []
    for step in range(30):
        batches, state = loader.sampler.plan_batch(step, state)
        seen.append({one.component.objective for one in batches})
    assert set().union(*seen[:20]) == {"dae", "bt"}
    assert set().union(*seen[20:]) == {"bt"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.bt": {"fr-en": 1.0}}, r"data\.bt\.fr-en: .* has no such training text, it has train\.de"),
        ({"data.bt": {"en-fr": 1.0}}, r"data\.bt\.en-fr: .* has no such training text"),
        ({"data.bt": {"en": 1.0}}, r"data\.bt\.en: the keys are directions; de-en reads English"),
        ({"data.bt": {"de-de": 1.0}}, r"data\.bt\.de-de: the keys are directions"),
    ],
)
def test_directions_that_the_data_lacks(tiny_dataset: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Loader(tiny_config("run", tiny_dataset, {**BT, **changes}), Dataset(tiny_dataset))


def test_settings_of_the_search_exclude_each_other() -> None:
    assert list(BackTranslationConfig(beam=1, temperature=0.5).problems()) == []
    with pytest.raises(ConfigError, match=r"bt\.temperature: draws tokens; with bt\.beam=3"):
        tiny_config("run", "data", {**BT, "bt.beam": 3, "bt.temperature": 1.0})
