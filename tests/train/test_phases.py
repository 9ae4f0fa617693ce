"""Runs in phases: resumed in and at the borders, extended, refused if a past phase changes, named in the metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.tiny import phase, run_processes, three_phases, tiny_config
from tests.support.training import assert_same_run, checkpoint, records, state, train_alone, train_on
from xlmtrain.config.schema import Config, PhaseConfig
from xlmtrain.config.train import OnSpike
from xlmtrain.errors import ConfigError
from xlmtrain.interop.bundle import trained_keys
from xlmtrain.report.curves import curve_charts
from xlmtrain.report.run_data import RunData


def config_of(run: Path, data: Path, phases: Sequence[PhaseConfig], **changes: Any) -> Config:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return tiny_config(
        run, data, {"train.log_every": 4, "train.save_every": 50, "evaluate.every": 0, **given, "phases": list(phases)}
    )


@pytest.fixture(scope="module")
def straight(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three phases, of steps 0 to 5, 6 to 13 and 14 to 19, without a stop."""
    run = tmp_path_factory.mktemp("phases") / "run"
    assert train_alone(config_of(run, tiny_dataset, three_phases())).reason == "20 steps"
    return run


def log_of(run: Path | str) -> str:
    return (Path(run) / "log.txt").read_text(encoding="utf-8")


def test_metrics_log_and_tensorboard_name_the_phase(straight: Path) -> None:
    named = {record["step"]: record["phase"] for record in records(straight) if "train/loss" in record}
    assert named == dict.fromkeys((4, 6), "causal") | dict.fromkeys((8, 12, 14), "masked") | {16: "long", 20: "long"}
    assert [record["step"] for record in records(straight) if "valid/mlm_ppl" in record] == [0, 6, 14, 20]
    assert checkpoint(straight, 14).is_dir()  # of the two last; none was due but at a phase's end
    log = log_of(straight)
    assert "phase long: steps 15 to 20, data.sampling_alpha=0.0, data.sequence_length=32, mask.prob=0.2" in log
    assert "phase masked, batch: 512 tokens = 8 sub-batches of 64, 8 per process; 8 steps" in log
    board = EventAccumulator(str(straight / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Tensors("phase/text_summary")] == [0, 6, 14]


def test_a_report_shows_the_borders(straight: Path) -> None:
    run = RunData(straight)
    tokens = {record["step"]: float(record["progress/tokens"]) for record in run.records if "train/loss" in record}
    assert run.phases == [(0.0, "causal"), (tokens[6], "masked"), (tokens[14], "long")]
    loss = next(chart for chart in curve_charts([run]) if chart.title.startswith("Training loss"))
    (axes,) = loss.draw().axes
    assert [text.get_text() for text in axes.texts] == ["causal", "masked", "long"]
    assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches] == [(tokens[6], tokens[14])]
    assert run.findings() == []
    settings = json.loads((straight / "config.json").read_text(encoding="utf-8"))
    assert trained_keys(settings) == {"mlm": ["de", "en"], "tlm": ["de-en"], "clm": ["de", "en"]}


@pytest.mark.parametrize("stops", [(6,), (3, 3, 1, 7), (14, 5)])
def test_stopped_and_resumed_is_the_straight_run(
    straight: Path, tiny_dataset: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    config = config_of(tmp_path / "run", tiny_dataset, three_phases(), train__log_every=1)
    for steps in stops:
        assert train_alone(config, stop_after=steps).status == "preempted"
    assert train_alone(config).status == "done"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (checkpoint(straight, 20) / name).read_bytes() == (checkpoint(config.run, 20) / name).read_bytes()
    found = [state(run, 20)["progress"] for run in (straight, config.run)]
    assert [(one["sampler_state"], one["losses"], one["tokens"]) for one in found[:1]] == [
        (one["sampler_state"], one["losses"], one["tokens"]) for one in found[1:]
    ]


@pytest.mark.slow
def test_other_numbers_of_processes_train_the_same(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", tiny_dataset, three_phases())
    train_alone(config, stop_after=4)
    assert [one.status for one in run_processes(2, train_on, tmp_path, config, 6)] == ["preempted"] * 2
    assert train_alone(config).status == "done"
    ours, theirs = (state(run, 20)["progress"] for run in (config.run, straight))
    assert (ours["sampler_state"], ours["tokens"]) == (theirs["sampler_state"], theirs["tokens"])
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-5)


def test_a_finished_run_is_extended_by_a_phase(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    """Whose settings the run of its beginning alone did not know."""
    config = config_of(tmp_path / "run", tiny_dataset, three_phases()[:2])
    assert train_alone(config).reason == "14 steps"
    config.phases = three_phases()
    assert train_alone(config).reason == "20 steps"
    assert_same_run(straight, config.run, 20)


def test_a_run_without_phases_is_extended_by_one(tiny_dataset: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", tiny_dataset, [], train__steps=8)
    train_alone(config)
    config.phases = [phase("begin"), phase("more", 4, mask__prob=0.5)]
    assert train_alone(config).reason == "12 steps"
    assert "phase more: steps 9 to 12, mask.prob=0.5" in log_of(config.run)


REFUSED = [
    ([phase("one", 6, mask__prob=0.3), phase("two", 14)], "phases[0].mask.prob: 0.15 -> 0.3"),
    ([phase("one", 6, optim__lr=0.3), phase("two", 14)], "phases[0].optim.lr: 0.01 -> 0.3"),
    ([phase("one", 5), phase("two", 15)], "phases[0], at step 9: ends after step 6 -> 5"),
    ([phase("one", 7), phase("two", 13)], "phases[0], at step 9: ends after step 6 -> 7"),
    ([phase("one", 6), phase("two", 2)], "phases[1], at step 9: ends after step 20 -> 8"),
    ([phase("one", 6)], "phases[1]: removed, at step 9"),
    ([phase("one", 6), phase("two", 14, data__tlm={"de-en": 2.0})], "phases[1].data.tlm.de-en: 1.0 -> 2.0"),
    ([], "phases[0], at step 9: ends after step 6 -> 20"),
]


def test_what_a_run_has_behind_it_does_not_change(tiny_dataset: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", tiny_dataset, [phase("one", 6), phase("two", 14)])
    train_alone(config, stop_after=9)
    for phases, complaint in REFUSED:
        config.phases = list(phases)
        with pytest.raises(ConfigError) as caught:
            train_alone(config)
        assert f"\n  {complaint}\n" in str(caught.value), complaint
    config.phases = [phase("first", 6), phase("two", 4, optim__lr=0.003), phase("three", 2, mask__prob=0.5)]
    assert train_alone(config).reason == "12 steps"  # another name, rate, end and phase to come
    assert "setting changed since the last start: phases: [{'name': 'one'" in log_of(config.run)


def test_a_loss_of_another_phase_is_no_spike(tiny_dataset: Path, tmp_path: Path) -> None:
    """A model that does not learn is worse at MLM than at CLM by many deviations; ``skip`` would not train on it."""
    first = phase("one", 40, data__clm={"en": 1.0}, data__mlm={}, data__tlm={})
    second = phase("two", 4, data__clm={}, data__mlm={"de": 1.0})
    still = {"optim__lr": 1e-30, "optim__warmup_init_lr": 0.0, "model__dropout": 0.0}
    skip = {"train__on_spike": OnSpike.skip, "train__batch_tokens": 1024}
    config = config_of(tmp_path / "run", tiny_dataset, [first, second], **still, **skip)
    train_alone(config)
    progress = state(config.run, 44)["progress"]
    assert (len(progress["losses"]), progress["spikes"], progress["skipped"]) == (4, 0, 0)
