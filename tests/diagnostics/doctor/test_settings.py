"""Settings that are possible but not sensible; the presets are neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import tiny_config
from xlmtrain.config.load import CONFIG_DIR, compose
from xlmtrain.diagnostics.doctor.settings import check_settings
from xlmtrain.diagnostics.rules import Finding

SENSIBLE = {"optim.warmup_steps": 100, "train.steps": 1000, "train.save_every": 100}


def findings(**changes: Any) -> list[Finding]:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    config = tiny_config("run", "data", {**SENSIBLE, **given})
    return [one for one in check_settings(config) if isinstance(one, Finding)]


@pytest.mark.parametrize("path", sorted((CONFIG_DIR / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_presets_are_in_order(path: Path) -> None:
    config = compose("config", [f"experiment={path.stem}"])
    assert [one for one in check_settings(config) if isinstance(one, Finding)] == []


@pytest.mark.parametrize(
    ("changes", "said", "grave"),
    [
        ({"optim__lr": 1.0}, "optim.lr=1 is high for a width of 16", True),
        ({"optim__lr": 1e-5}, "optim.lr=1e-05 is low for a width of 16", True),
        ({"optim__warmup_steps": 3}, "no warm-up to speak of (optim.warmup_steps=3)", True),
        (
            {"optim__warmup_steps": 1000},
            "optim.warmup_steps=1000: the warm-up is not over when the run is, after 1,000 steps",
            True,
        ),
        ({"optim__clip_grad_norm": 0.0}, "gradients are not clipped", False),
        ({"train__save_every": 2000}, "train.save_every=2000: no checkpoint before the last step", False),
        (
            {"model__max_positions": 512, "data__sequence_length": 256, "data__sub_batch_tokens": 256},
            "long sequences",
            False,
        ),
        ({"model__dim": 128, "model__heads": 8, "optim__lr": 1e-3}, "heads of 16", False),
    ],
)
def test_what_is_not_sensible(changes: dict[str, Any], said: str, grave: bool) -> None:
    assert findings() == []
    (finding,) = findings(**changes)
    assert finding.what.startswith(said)
    assert finding.grave is grave
