"""Runs that begin from another model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.support.tiny import tiny_config
from xlmtrain.config.model import InitConfig
from xlmtrain.config.schema import Config
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.languages import LANGUAGES

STEPS = 10


def begin(run: Path, data: Path, init: InitConfig, changes: dict[str, Any] | None = None) -> Config:
    """Settings of a run from other first weights. Dropout and seed are free: they do not change what weights mean."""
    given = {"train.steps": STEPS, "seed": 5, "model.dropout": 0.2, **(changes or {})}
    return replace(tiny_config(run, data, given), init=init)


def with_languages(saved: PretrainedBundle, languages: list[str]) -> PretrainedBundle:
    """The same model knowing other languages: the rows of de and en under their names, one of sevens for any other."""
    rows = dict(zip(saved.languages, saved.weights[LANGUAGES]))
    table = torch.stack([rows.get(language, torch.full((16,), 7.0)) for language in languages])
    return replace(saved, languages=languages, weights={**saved.weights, LANGUAGES: table})
