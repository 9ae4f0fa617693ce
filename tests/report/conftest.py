"""A run to report on."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_config
from training import train_alone

from xlmtrain.config.schema import ClassifyConfig


@pytest.fixture(scope="session")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "run"
    dictionary = path.with_name("en-de.tsv")
    dictionary.write_text("".join(f"{a}\t{b}\n" for a, b in zip("abcd", "uvwx")), encoding="utf-8")
    labelled = {lang: path.with_name(f"labelled.{lang}.tsv") for lang in ("en", "de")}
    labelled["en"].write_text("yes\tu v\nno\tx w\n", encoding="utf-8")
    labelled["de"].write_text("yes\ta b\nno\tc d\n", encoding="utf-8")
    watched = {
        "evaluate.translations": 20,
        "evaluate.dictionary": str(dictionary),
        "evaluate.classify": ClassifyConfig({"en": str(labelled["en"])}, {"de": str(labelled["de"])}),
    }
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": 10, **watched}))
    return path
