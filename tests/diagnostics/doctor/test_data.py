"""Data that is damaged, doubtful or not what the settings ask for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.tiny import tiny_config, write_corpus, write_header, write_tiny_dataset
from xlmtrain.data.dataset import Dataset
from xlmtrain.diagnostics.doctor import data
from xlmtrain.diagnostics.doctor.data import check_data, check_use
from xlmtrain.diagnostics.rules import Finding
from xlmtrain.text.vocab import UNK

# The tiny text's words are single letters, some of which English has and German has not.
TINY = "it reads like en, not de; were files swapped?"


def found(lines: Iterable[str | Finding]) -> list[Finding]:
    return [one for one in lines if isinstance(one, Finding) and not one.what.endswith(TINY)]


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
    assert finding.grave
    assert "train.de.ids: damaged between bytes" in finding.what


def test_unknown_words(own_dataset: Path) -> None:
    dataset = rewritten(own_dataset, "train.en", [[UNK, 30 + number % 9, 31 + number // 9] for number in range(80)])
    (finding,) = found(check_data(tiny_config("run", own_dataset), dataset))
    assert finding.grave
    assert finding.what.startswith("train.en: 33.3% of the subwords are not in the vocabulary")


def test_repeated_lines(own_dataset: Path) -> None:
    dataset = rewritten(own_dataset, "train.en", [[30 + number % 20, 31] for number in range(100)] + [[]] * 50)
    (finding,) = found(check_data(tiny_config("run", own_dataset), dataset))
    assert finding.grave
    assert finding.what.startswith("train.en: 80% of the training lines occurred before")


def test_overlap_is_told_of_and_no_wrong(own_dataset: Path) -> None:
    """It was left out; what else preparation noticed is one."""
    file = {"split": "train", "language": "de", "pair": None, "file": "x", "lines": 90, "words": 10, "subwords": 90}
    content = {"files": [{**file, "dropped": {"overlap": 3}}], "vocab_size": 54, "codes": 1}
    (own_dataset / "statistics.json").write_text(json.dumps(content), encoding="utf-8")
    findings = found(check_data(tiny_config("run", own_dataset), Dataset(own_dataset)))
    assert [(finding.what.partition(",")[0], finding.grave) for finding in findings] == [
        ("train.de: 3 lines are in the validation or test text", False),
        ("train.de: 9.0 subwords a word; were the codes learned from text like this", True),
    ]


def test_an_absurd_vocabulary(own_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(own_dataset)
    monkeypatch.setattr(type(dataset.vocab), "__len__", lambda self: 3_800_000)
    monkeypatch.setattr(data, "doubts", lambda dataset, model: [])
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
    assert not any(finding.grave for finding in often)
    assert "will be seen" in often[0].what


def test_no_validation_text(tmp_path: Path) -> None:
    whole = Dataset(write_tiny_dataset(tmp_path / "data"))
    corpora = {name: corpus for name, corpus in whole.header.corpora.items() if name.startswith("train.")}
    write_header(whole.path, whole.vocab, corpora)
    (finding,) = found(check_use(tiny_config("run", whole.path), Dataset(whole.path), 1))
    assert finding.what.startswith("There is no validation text")
    assert not finding.grave
