"""A run to report on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import tiny_config
from tests.support.training import train_alone
from xlmtrain.config.evaluate import ZeroShotProbeConfig


@pytest.fixture(scope="session")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "run"
    dictionary = path.with_name("en-de.tsv")
    dictionary.write_text("".join(f"{a}\t{b}\n" for a, b in zip("abcd", "uvwx")), encoding="utf-8")
    labelled = {lang: path.with_name(f"labelled.{lang}.tsv") for lang in ("en", "de")}
    labelled["en"].write_text("yes\tu v\nno\tx w\n", encoding="utf-8")
    labelled["de"].write_text("yes\ta b\nno\tc d\n", encoding="utf-8")
    watched = {
        "evaluate.max_pairs": 20,
        "evaluate.bilingual_lexicon": str(dictionary),
        "evaluate.zero_shot_probe": ZeroShotProbeConfig({"en": str(labelled["en"])}, {"de": str(labelled["de"])}),
    }
    train_alone(tiny_config(path, tiny_dataset, {"train.steps": 10, **watched}))
    return path
