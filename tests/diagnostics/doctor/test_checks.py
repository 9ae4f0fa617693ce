"""Settings unlikely to train well; data that is damaged, of bad quality, or not what the settings ask for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import tiny_config, write_corpus, write_header, write_tiny_dataset
from xlmtrain.config.load import CONFIG_DIR, compose
from xlmtrain.data.dataset import Dataset
from xlmtrain.diagnostics.doctor import checks
from xlmtrain.diagnostics.doctor.checks import catch_user_errors, check_data, check_settings, check_use
from xlmtrain.diagnostics.finding import Finding, Severity
from xlmtrain.text.vocab import UNK

# The tiny text's words are single letters, some of which English has and German has not.
TINY = "it reads like en, not de; were files swapped?"


def found(lines: Iterable[Finding]) -> list[Finding]:
    problems = (one for one in catch_user_errors(lines) if one.severity is not Severity.info)
    return [one for one in problems if not one.what.endswith(TINY)]


def rewritten(dataset: Path, name: str, sentences: list[list[int]]) -> Dataset:
    """The data set with another corpus of that name."""
    old = Dataset(dataset)
    corpora = {**old.header.corpora, name: write_corpus(dataset, name, sentences)}
    write_header(dataset, old.vocab, corpora)
    return Dataset(dataset)


def test_sound_data(own_dataset: Path) -> None:
    config = tiny_config("run", own_dataset)
    assert found(check_data(config, Dataset(own_dataset))) == []
    assert found(check_use(config, Dataset(own_dataset), 2)) == []


def test_a_flipped_byte(own_dataset: Path) -> None:
    path = own_dataset / "train.de.ids"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    (finding,) = found(check_data(tiny_config("run", own_dataset), Dataset(own_dataset)))
    assert finding.severity is Severity.error
    assert "train.de.ids: damaged between bytes" in finding.what


def test_unknown_words(own_dataset: Path) -> None:
    dataset = rewritten(own_dataset, "train.en", [[UNK, 30 + number % 9, 31 + number // 9] for number in range(80)])
    (finding,) = found(check_data(tiny_config("run", own_dataset), dataset))
    assert finding.severity is Severity.error
    assert finding.what.startswith("train.en: 33.3% of the subwords are not in the vocabulary")


def test_repeated_lines(own_dataset: Path) -> None:
    dataset = rewritten(own_dataset, "train.en", [[30 + number % 20, 31] for number in range(100)] + [[]] * 50)
    (finding,) = found(check_data(tiny_config("run", own_dataset), dataset))
    assert finding.severity is Severity.error
    assert finding.what.startswith("train.en: 80% of the training lines occurred before")


def test_overlap_is_a_warning_only(own_dataset: Path) -> None:
    """The lines were left out; the other findings of preparation are errors."""
    file = {"split": "train", "language": "de", "pair": None, "file": "x", "lines": 90, "words": 10, "subwords": 90}
    content = {"files": [{**file, "dropped": {"overlap": 3}}], "vocab_size": 54, "codes": 1}
    (own_dataset / "statistics.json").write_text(json.dumps(content), encoding="utf-8")
    findings = found(check_data(tiny_config("run", own_dataset), Dataset(own_dataset)))
    assert [(finding.what.partition(",")[0], finding.severity) for finding in findings] == [
        ("train.de: 3 lines are in the validation or test text", Severity.warning),
        ("train.de: 9.0 subwords a word; were the codes learned from text like this", Severity.error),
    ]


def test_an_absurd_vocabulary(own_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(own_dataset)
    monkeypatch.setattr(type(dataset.vocab), "__len__", lambda self: 3_800_000)
    monkeypatch.setattr(checks, "quality_warnings", lambda dataset, model: [])
    (finding,) = found(check_data(tiny_config("run", own_dataset), dataset))
    assert "a vocabulary of 3,800,000" in finding.what


def test_what_the_settings_ask_for_is_not_there(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = Dataset(tiny_dataset)
    (missing,) = found(check_use(tiny_config("run", tiny_dataset, {"data.mlm": {"fr": 1.0}}), dataset, 1))
    assert "fr" in missing.what
    (uneven,) = found(check_use(tiny_config("run", tiny_dataset), dataset, 3))
    assert "which 3 processes cannot share evenly; take one of 1, 2, 4 processes" in uneven.what
    (metric,) = found(check_use(tiny_config("run", tiny_dataset, {"evaluate.metric": "valid/fr_ppl"}), dataset, 1))
    assert metric.what.startswith("evaluate.metric: 'valid/fr_ppl' is none of")
    often = found(check_use(tiny_config("run", tiny_dataset, {"train.steps": 100_000}), dataset, 1))
    assert len(often) == 3
    assert {finding.severity for finding in often} == {Severity.warning}
    assert "will be seen" in often[0].what


def test_no_validation_text(tmp_path: Path) -> None:
    whole = Dataset(write_tiny_dataset(tmp_path / "data"))
    corpora = {name: corpus for name, corpus in whole.header.corpora.items() if name.startswith("train.")}
    write_header(whole.path, whole.vocab, corpora)
    (finding,) = found(check_use(tiny_config("run", whole.path), Dataset(whole.path), 1))
    assert finding.what.startswith("There is no validation text")
    assert finding.severity is Severity.warning


SENSIBLE = {"optim.warmup_steps": 100, "train.steps": 1000, "train.save_every": 100}


def settings_findings(**changes: Any) -> list[Finding]:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    config = tiny_config("run", "data", {**SENSIBLE, **given})
    return found(check_settings(config))


@pytest.mark.parametrize("path", sorted((CONFIG_DIR / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_presets_are_in_order(path: Path) -> None:
    config = compose("config", [f"experiment={path.stem}"])
    assert found(check_settings(config)) == []


@pytest.mark.parametrize(
    ("changes", "said", "severity"),
    [
        ({"optim__lr": 1.0}, "optim.lr=1 is high for a width of 16", Severity.error),
        ({"optim__lr": 1e-5}, "optim.lr=1e-05 is low for a width of 16", Severity.error),
        ({"optim__warmup_steps": 3}, "no warm-up to speak of (optim.warmup_steps=3)", Severity.error),
        (
            {"optim__warmup_steps": 1000},
            "optim.warmup_steps=1000: the warm-up does not end before the run, after 1,000 steps",
            Severity.error,
        ),
        ({"optim__clip_grad_norm": 0.0}, "gradients are not clipped", Severity.warning),
        ({"train__save_every": 2000}, "train.save_every=2000: no checkpoint before the last step", Severity.warning),
        (
            {"model__max_positions": 512, "data__sequence_length": 256, "data__sub_batch_tokens": 256},
            "long sequences",
            Severity.warning,
        ),
        ({"model__dim": 128, "model__heads": 8, "optim__lr": 1e-3}, "heads of 16", Severity.warning),
    ],
)
def test_what_is_not_sensible(changes: dict[str, Any], said: str, severity: Severity) -> None:
    assert settings_findings() == []
    (finding,) = settings_findings(**changes)
    assert finding.what.startswith(said)
    assert finding.severity is severity


def test_a_later_phase_needs_no_warm_up() -> None:
    config = compose("config", ["experiment=phases_small", "data.sequence_length=32"])
    findings = list(check_settings(config))
    assert [finding.what for finding in findings if finding.severity is not Severity.info] == []
    assert [finding.what.partition(":")[0] for finding in findings] == ["causal", "masked", "decay"]
