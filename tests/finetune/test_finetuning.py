"""Fine-tuning as a whole: it learns, across languages; what is frozen stays; it stops early, resumes, and is shared."""

from __future__ import annotations

import queue
import signal
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny import ALONE, run_processes
from tests.support.toy import result, run_toy, toy_config, toy_model, weights, write_task
from tests.support.training import NoSignals, records, status
from xlmtrain.config.finetune import FinetuneConfig, SelectionMetric
from xlmtrain.errors import ConfigError, NumericalError
from xlmtrain.finetune.training import SeedTraining
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.hf.model import read_hf_folder, write_hf_folder
from xlmtrain.runtime import watchdog
from xlmtrain.train.step import StepOutput


@pytest.fixture(scope="module")
def saved(tiny_dataset: Path) -> PretrainedBundle:
    return toy_model(tiny_dataset)


def state(config: FinetuneConfig, step: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return load_file(Path(config.run) / f"seed-{seed}" / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_learns_english_and_knows_german_where_the_languages_have_met(
    saved: PretrainedBundle, tiny_dataset: Path, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in saved.weights.items()}
    found = run_toy(ALONE, toy_config(tmp_path, seeds=[0, 1]), saved)
    assert found is not None
    for language in ("en", "de"):
        assert [scores.metrics["accuracy"] > 85 for scores in found[language]] == [True, True]
    assert all(torch.equal(value, before[name]) for name, value in saved.weights.items())
    apart = run_toy(ALONE, toy_config(tmp_path, "apart"), toy_model(tiny_dataset, aligned=False))
    assert apart is not None
    assert apart["en"][0].metrics["accuracy"] > 90
    assert apart["de"][0].metrics["accuracy"] < 75


def test_pairs_of_texts(saved: PretrainedBundle, tmp_path: Path) -> None:
    files = {name: str(write_task(tmp_path / name, name[-2:], 160, n, True)) for n, name in enumerate(["a.en", "b.de"])}
    config = toy_config(tmp_path, test={"de": files["b.de"]}, epochs=8)
    config = replace(config, task=replace(config.task, train={"en": files["a.en"]}))
    found = run_toy(ALONE, config, saved)
    assert found is not None
    assert found["de"][0].metrics["accuracy"] > 85


@pytest.mark.parametrize(("layers", "learning"), [([], ""), ([2], "encoder.blocks.1."), ([0], "encoder.")])
def test_only_the_chosen_layers_learn(
    saved: PretrainedBundle, tmp_path: Path, layers: list[int], learning: str
) -> None:
    config = toy_config(tmp_path, layers=layers, epochs=1)
    run_toy(ALONE, config, saved)
    after = state(config, 10)
    for name, value in after.items():
        if not name.startswith("head."):
            inside = bool(learning) and name.startswith(learning) and ("blocks" in name) == ("blocks" in learning)
            assert torch.equal(value, saved.weights[name]) is not inside, name


def test_a_layer_that_there_is_not(saved: PretrainedBundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.layers=\[3\]: the model has 0 \(the embeddings\) to 2"):
        run_toy(ALONE, toy_config(tmp_path, layers=[3]), saved)


def stop_after(steps: int, config: FinetuneConfig, saved: PretrainedBundle) -> None:
    """SIGTERM arrives in so manieth step."""
    stop, step, done = NoSignals(), SeedTraining._step, 0

    def counted(training: SeedTraining) -> StepOutput:
        nonlocal done
        done += 1
        if done == steps:
            stop.signal = signal.SIGTERM
        return step(training)

    with mock.patch.object(SeedTraining, "_step", counted):
        assert run_toy(ALONE, config, saved, stop) is None


def test_stopped_and_resumed_is_the_straight_run(saved: PretrainedBundle, tmp_path: Path) -> None:
    """Bit for bit, with dropout, in the midst of an epoch, at an evaluation, and right at the end of a seed."""
    valid = {"en": str(write_task(tmp_path / "v", "en", 40, 9))}
    straight, stopped = (toy_config(tmp_path, n, seeds=[4, 2], dropout=0.1, valid=valid) for n in ("a", "b"))
    expected = run_toy(ALONE, straight, saved)
    for steps in (13, 7, 20):
        stop_after(steps, stopped, saved)
    assert run_toy(ALONE, stopped, saved) == expected
    for seed in (4, 2):
        assert result(stopped, seed) == result(straight, seed)
        assert weights(stopped, 40, seed) == weights(straight, 40, seed)


def test_more_seeds_go_on_where_fewer_ended(saved: PretrainedBundle, tmp_path: Path) -> None:
    first = run_toy(ALONE, toy_config(tmp_path, epochs=1), saved)
    both = run_toy(ALONE, toy_config(tmp_path, epochs=1, seeds=[0, 1]), saved)
    assert first is not None
    assert both is not None
    assert both["de"][0] == first["de"][0]
    assert weights(toy_config(tmp_path), 10, 0) != weights(toy_config(tmp_path), 10, 1)


def test_the_best_weights_are_tested_and_patience_ends_it(saved: PretrainedBundle, tmp_path: Path) -> None:
    """A rate far too high destroys what the first epochs learned."""
    valid = {"en": str(write_task(tmp_path / "v", "en", 40, 9))}
    too_fast = {"epochs": 30, "lr": 0.02, "warmup_steps": 0}
    config = toy_config(tmp_path, valid=valid, patience=2, metric=SelectionMetric.f1, **too_fast)
    run_toy(ALONE, config, saved)
    found = result(config)
    assert found["steps"] == found["best_step"] + 2 * 10 < 300
    again = replace(config, run=str(tmp_path / "again"), train=replace(config.train, epochs=found["best_step"] / 10))
    # The schedule hangs on the warm-up alone, so the run that ends at the best step has the best one's weights.
    run_toy(ALONE, again, saved)
    assert result(again)["test"] == found["test"]


@pytest.mark.slow
def test_two_processes_share_the_work(saved: PretrainedBundle, tmp_path: Path) -> None:
    alone, together = toy_config(tmp_path, "alone"), toy_config(tmp_path, "together")
    expected = run_toy(ALONE, alone, saved)
    first, second = run_processes(2, run_toy, tmp_path, together, saved)
    assert first == second == expected
    ours, theirs = ([r["train/loss"] for r in records(Path(c.run) / "seed-0")] for c in (alone, together))
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert ours[-1] < ours[0] / 2


def test_another_fine_tuning_is_not_mixed_in(saved: PretrainedBundle, tiny_dataset: Path, tmp_path: Path) -> None:
    config = toy_config(tmp_path, epochs=1)
    run_toy(ALONE, config, saved)
    with pytest.raises(ConfigError, match=r"holds a run with other settings:\n  optim.lr: 0.005 -> 0.02\n"):
        run_toy(ALONE, toy_config(tmp_path, epochs=1, lr=0.02), saved)
    with pytest.raises(ConfigError, match="model_sha256"):
        run_toy(ALONE, config, toy_model(tiny_dataset, aligned=False))
    write_task(tmp_path / "train.en.tsv", "en", 160, 77)
    with pytest.raises(ConfigError, match="data_sha256"):
        run_toy(ALONE, config, saved)
    fresh = run_toy(ALONE, toy_config(tmp_path, epochs=1, lr=0.02, overwrite=True), saved)
    assert fresh is not None
    with pytest.raises(ConfigError, match="this directory is not a fine-tuning"):
        run_toy(ALONE, replace(config, run=str(tiny_dataset)), saved)


def test_a_gradient_that_is_not_finite_ends_it(saved: PretrainedBundle, tmp_path: Path) -> None:
    broken = {**saved.weights, "encoder.blocks.1.ffn.outer.bias": torch.full((32,), torch.nan)}
    with pytest.raises(NumericalError, match="step 1 of seed 0"):
        run_toy(ALONE, toy_config(tmp_path), replace(saved, weights=broken))


def test_a_hang_ends_it(saved: PretrainedBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code of pretraining, and the reason in status.json."""
    codes: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(watchdog, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(watchdog.os, "_exit", codes.put)
    config = toy_config(tmp_path, hang_timeout=0.05)

    def hang(training: SeedTraining) -> StepOutput:
        assert codes.get(timeout=60) == watchdog.EXIT_HUNG
        raise ZeroDivisionError(status(config.run)["reason"])

    monkeypatch.setattr(SeedTraining, "_step", hang)
    with pytest.raises(ZeroDivisionError, match=r"no progress for 0\.05 seconds \(train\.hang_timeout\)"):
        run_toy(ALONE, config, saved)


@pytest.mark.slow
def test_a_hugging_face_model_gives_the_same_result(saved: PretrainedBundle, tmp_path: Path) -> None:
    write_hf_folder(saved, tmp_path / "hf")
    config = toy_config(tmp_path, epochs=1)
    other = toy_config(tmp_path, "other", epochs=1)
    assert run_toy(ALONE, config, saved) == run_toy(ALONE, other, read_hf_folder(tmp_path / "hf"))
