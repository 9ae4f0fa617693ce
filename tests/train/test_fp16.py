"""fp16 with its loss scale on a CPU: overflow, skip, recovery, and the scale after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.tiny import CPU, tiny_config
from tests.support.training import assert_same_run, checkpoint, records, state, status, train_alone
from xlmtrain.config.train import Precision, TrainConfig
from xlmtrain.errors import NumericalError
from xlmtrain.runtime.precision import autocast, choose_precision, make_scaler

FP16 = {
    "train.precision": Precision.fp16,
    "train.initial_loss_scale": 2.0**25,
    "train.loss_scale_window": 4,
    "train.save_every": 1,
    "train.keep_last": 100,
}


@pytest.fixture(scope="module")
def straight(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 steps from a scale so large that the first gradients overflow."""
    run = tmp_path_factory.mktemp("fp16") / "run"
    train_alone(tiny_config(run, tiny_dataset, {**FP16, "train.steps": 30}))
    return run


def test_overflow_skips_and_halves_and_good_steps_double(straight: Path) -> None:
    figures = [record for record in records(straight) if "train/loss" in record]
    scale, skipped, good = 2.0**25, 0, 0
    for figure in figures:
        if figure["train/skipped_steps"] > skipped:
            scale, skipped, good = scale / 2, skipped + 1, 0
            moved = checkpoint(straight, figure["step"]), checkpoint(straight, figure["step"] - 1)
            if figure["step"] > 1:
                assert len({(path / "model.safetensors").read_bytes() for path in moved}) == 1
                assert len({(path / "optimizer.safetensors").read_bytes() for path in moved}) == 1
        else:
            good += 1
            if good == 4:
                scale, good = scale * 2, 0
        assert figure["train/loss_scale"] == scale, figure["step"]
        assert figure["train/skipped_steps"] == skipped
    steps = [figure["step"] for figure in figures if "train/grad_norm" not in figure]
    assert 1 in steps  # overflowed at once,
    assert max(steps) > min(set(range(1, 31)) - set(steps))  # and again after the scale had grown
    assert 2 <= skipped <= 15
    # The scale is taken off before clipping and reporting
    assert all(0.1 < f["train/grad_norm"] < 10 for f in figures if "train/grad_norm" in f)


def test_it_learns_all_the_same(straight: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    found = [record["valid/mlm_ppl"] for record in records(straight) if "valid/mlm_ppl" in record]
    assert found[-1] < 0.8 * found[0]


@pytest.mark.parametrize("stop", [1, 2, 11])
def test_resume_goes_on_with_the_scale(straight: Path, tiny_dataset: Path, tmp_path: Path, stop: int) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {**FP16, "train.steps": 30})
    train_alone(config, stop_after=stop)
    saved = state(config.run, stop)["scaler"]
    assert saved == state(straight, stop)["scaler"]
    assert (
        saved["scale"]
        == next(r for r in records(straight) if r["step"] == stop and "train/loss" in r)["train/loss_scale"]
    )
    train_alone(config)
    assert_same_run(straight, config.run, 30)


def test_no_scale_left(tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {**FP16, "train.initial_loss_scale": 2.0**40, "train.min_loss_scale": 2.0**37}
    config = tiny_config(tmp_path / "run", tiny_dataset, changes)
    with pytest.raises(
        NumericalError, match=r"every loss scale down to train\.min_loss_scale=137438953472\.0 in step 4"
    ):
        train_alone(config)
    assert status(config.run)["status"] == "failed"
    assert checkpoint(config.run, 3).is_dir()
    assert not checkpoint(config.run, 4).exists()


@pytest.mark.parametrize("native", [True, False])
def test_number_formats_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, native: bool
) -> None:
    monkeypatch.setattr("xlmtrain.runtime.precision.has_bf16", lambda device: native)
    assert choose_precision(Precision.auto, CPU) is (Precision.bf16 if native else Precision.fp32)
    for wanted in (Precision.fp32, Precision.bf16, Precision.fp16):
        assert choose_precision(wanted, CPU) is wanted
    assert ("has neither AVX512-BF16 nor AMX" in caplog.text) is not native
    a = torch.ones(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast(Precision(precision), CPU):
            assert (a @ a).dtype == dtype
    assert not make_scaler(TrainConfig(), Precision.bf16, CPU).is_enabled()


def test_bf16_trains(tiny_dataset: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", tiny_dataset, {"train.precision": Precision.bf16, "train.steps": 10})
    train_alone(config)
    figures = records(config.run)
    assert "train/loss_scale" not in figures[1]
    assert figures[-1]["valid/mlm_ppl"] < figures[0]["valid/mlm_ppl"]
