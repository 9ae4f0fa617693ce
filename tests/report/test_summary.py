"""The summary on the terminal: the run itself, its evaluations, and masked words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from xlmtrain.evaluate.cloze import ClozeExample
from xlmtrain.report.model_views import Views
from xlmtrain.report.report import summary
from xlmtrain.report.run_data import RunData
from xlmtrain.report.sections import cloze_accuracy


@pytest.fixture
def data(run: Path, tmp_path: Path) -> RunData:
    """A run with metrics and an environment that are known."""
    path = tmp_path / "some-run"
    shutil.copytree(run, path)
    environment = {"processes": 2, "device": "a GPU", "torch": "9.9", "python": "3.99"}
    (path / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    records = [
        {"step": 0, "valid/de_mlm_ppl": 80.123, "valid/de_mlm_acc": 1.26, "valid/mlm_ppl": 90.0, "valid/mlm_acc": 2.0},
        {
            "step": 4000,
            "train/loss": 1.0,
            "progress/tokens": 1_200_000,
            "progress/seconds": 60.0,
            "speed/peak_memory_gb": 1.5,
        },
        {"step": 4000, "valid/de_mlm_ppl": 7.0, "valid/de_mlm_acc": 50.0, "valid/mlm_ppl": 8.0, "valid/mlm_acc": 40.0},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return RunData(path)


def examples(count: int, alone: int, together: int) -> list[ClozeExample]:
    """``alone`` right guesses without, ``together`` with the translation."""
    return [
        ClozeExample(
            f"die <mask> {i}",
            f"the cat | {i}",
            "Katze",
            "Katze" if i < alone else "Uhr|",
            "Katze" if i < together else "Hund",
        )
        for i in range(count)
    ]


def section(text: str) -> list[str]:
    """Return the lines about masked words."""
    lines = text.splitlines()
    return lines[lines.index("## Masked words without and with the translation") :]


def test_accuracy_of_masked_words(data: RunData) -> None:
    found = examples(16, alone=2, together=12)
    assert cloze_accuracy(found) == (0.125, 0.75)
    assert cloze_accuracy([]) == (0.0, 0.0)
    assert section(summary(data, Views(cloze=found)))[2] == (
        "One word was masked in each of 16 validation sentences. Masked-word accuracy (first guess): 75.0% with the "
        "translation in view, 12.5% without. If both are equal, there is no cross-lingual transfer yet. Examples that "
        "only the translation solved come first."
    )


def test_those_that_only_the_translation_solved_come_first(data: RunData) -> None:
    lines = section(summary(data, Views(cloze=examples(16, alone=1, together=8))))
    assert lines[4:6] == [
        "| sentence | translation | masked | guess without | guess with |",
        "| --- | --- | --- | --- | --- |",
    ]
    numbers = [line.split(" | ")[0].split()[-1] for line in lines[6:]]
    assert numbers == ["1", "2", "3", "4", "0", "8", "9", "10"]
    assert lines[6] == "| die &lt;mask> 1 | the cat \\| 1 | Katze | Uhr\\| | Katze |"
    assert lines[-1] == "| die &lt;mask> 10 | the cat \\| 10 | Katze | Uhr\\| | Hund |"


def test_the_run_itself(data: RunData) -> None:
    assert summary(data, Views()).splitlines() == [
        "# some-run",
        "",
        "2 process(es) on a GPU, torch 9.9, Python 3.99.",
        "4,000 steps, 1.2M tokens, 0:01:00 of training, 20,000 tokens/s, 1.50 GB peak memory per process.",
        "",
        "## Validation: perplexity (accuracy in %)",
        "",
        "| step | de_mlm | mlm |",
        "| ---: | ---: | ---: |",
        "| 0 | 80.12 (1.3) | 90.00 (2.0) |",
        "| 4000 | 7.00 (50.0) | 8.00 (40.0) |",
    ]
