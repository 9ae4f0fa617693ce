"""Trials of a few steps: of a run that learns, and of some that cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.findings import findings, only
from tests.support.tiny import CPU, tiny_config
from xlmtrain.config.load import compose
from xlmtrain.config.train import Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.diagnostics.doctor import smoke_run
from xlmtrain.diagnostics.doctor.smoke_run import check_first_steps, check_initial_loss, shortened
from xlmtrain.diagnostics.finding import Finding, Severity
from xlmtrain.runtime import failpoints


def tried(dataset: Path, steps: int = 30, **changes: Any) -> list[Finding]:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return list(check_first_steps(tiny_config("run", dataset, given), Dataset(dataset), steps, CPU))


def test_a_run_that_learns(tiny_dataset: Path) -> None:
    found = tried(tiny_dataset)
    assert findings(found) == []
    assert str(found[0]).startswith("loss at the start 4.")
    assert "ln V = 3.99" in str(found[0])
    assert str(found[1]).startswith("the loss falls: 4.")


def test_a_rate_that_moves_nothing(tiny_dataset: Path) -> None:
    assert only(tried(tiny_dataset, optim__lr=1e-7)).what.startswith("The loss does not fall")


def test_a_rate_that_breaks_it(tiny_dataset: Path) -> None:
    finding = only(tried(tiny_dataset, optim__lr=10.0, optim__warmup_steps=0))
    assert finding.what.startswith("The loss rises")
    assert finding.causes[0] == "a lower optim.lr, like 1e+00"


def test_numbers_that_are_not_finite(tiny_dataset: Path) -> None:
    failpoints.arm("loss:3:0:nan", rank=0)
    finding = only(tried(tiny_dataset))
    assert finding.what.startswith("The gradient of step 1 of the trial is not finite")
    assert finding.severity is Severity.error


def test_fp16_may_lose_steps_but_not_all(tiny_dataset: Path) -> None:
    failpoints.arm("loss:1-4:0:nan", rank=0)
    assert findings(tried(tiny_dataset, train__precision=Precision.fp16)) == []
    failpoints.arm("loss:1-:0:nan", rank=0)
    finding = only(tried(tiny_dataset, steps=4, train__precision=Precision.fp16))
    assert finding.what.startswith("The gradient of step 4 of the trial is not finite")


def test_first_weights_that_are_off(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def inflate(init: Any, config: Any, model: torch.nn.Module, dataset: Any) -> list[str]:
        with torch.no_grad():
            model.encoder.token_embeddings.weight.mul_(30)  # type: ignore[union-attr, operator]
        return []

    monkeypatch.setattr(smoke_run, "initialize_weights", inflate)
    found = findings(tried(tiny_dataset, steps=1))
    assert "not between 3.49 and 5.50" in found[0].what


@pytest.mark.parametrize(
    ("loss", "dim", "given", "said"),
    [
        (8.2, 64, False, None),
        (6.0, 64, False, "Random weights begin at 6.00"),  # what is to be predicted can be seen
        (12.0, 64, False, "Random weights begin at 12.00"),
        (12.8, 1024, False, None),  # as the full model was seen to begin
        (40.0, 1024, False, "Random weights begin at 40.00"),
        (3.0, 64, True, None),
        (7.0, 64, True, "The pretrained weights predict this text worse"),
    ],
)
def test_the_start(loss: float, dim: int, given: bool, said: str | None) -> None:
    found = findings(check_initial_loss(loss, 3000, dim, 6.5, given))
    assert [finding.what.startswith(said or "") for finding in found] == ([True] if said else [])


def test_a_machine_that_is_too_slow(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke_run, "_SECONDS", -1.0)
    finding = only(tried(tiny_dataset))
    assert "only 1 steps were done" in finding.what
    assert finding.severity is Severity.warning


@pytest.mark.parametrize("preset", ["quickstart", "small_cpu", "mlm_ende_1024", "mlm_tlm_ende_1024"])
def test_large_batches_are_tried_in_small(preset: str) -> None:
    config = compose("config", [f"experiment={preset}", "data.path=x"])
    trial = shortened(config, 30)
    assert trial.train.batch_tokens <= 2048
    assert trial.optim.lr == config.optim.lr
    assert trial.optim.warmup_steps == 10
    assert trial.model == config.model
