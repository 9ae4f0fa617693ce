"""The statistics of a preparation, and the warnings that they give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.preparation import Workplace, dropped
from xlmtrain.config.prepare import BpeConfig, SplitConfig, VocabConfig
from xlmtrain.diagnostics.finding import print_warnings
from xlmtrain.diagnostics.statistics_warnings import statistics_warnings
from xlmtrain.prepare import encode_stage
from xlmtrain.prepare.pipeline import prepare
from xlmtrain.prepare.statistics import Statistics


def test_unknown_words_are_reported_with_their_counts(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    work.write("mono.en", [*(["The cat ☃ sleeps."] * 30), *(["The ★ cat ☃ ★ sleeps."] * 10), "The cat sleeps."])
    valid = SplitConfig(mono={"en": [f"{work.directory}/mono.en"]})
    statistics = work.prepare(train=work.pairs(), valid=valid)
    assert statistics.unknown_words["valid.en"] == [("☃", 40), ("★", 20)]
    assert statistics.unknown_words["train.de-en.de"] == []
    assert "unknown in valid.en: ☃ 40 | ★ 20" in str(statistics)
    for file in statistics.files:
        file.file = Path(file.file).name  # prepared data is passed on: no directories in it
    assert Statistics.read(work.output / "statistics.json") == statistics
    monkeypatch.setattr(encode_stage, "_SENTENCES_SEARCHED", 20)  # every other sentence
    again = work.prepare(train=work.pairs(), valid=valid, overwrite=True)
    assert again.unknown_words["valid.en"] == [("☃", 20), ("★", 10)]
    limited = work.prepare(vocab=VocabConfig(max_size=30), overwrite=True)
    assert "Dächern" in dict(limited.unknown_words["train.de"])


def test_the_statistics_count_tokens(work: Workplace) -> None:
    statistics = work.prepare()
    (german,) = [file for file in statistics.files if file.language == "de" and file.pair is None]
    sentences = work.sentences("train.de")
    assert german.subwords == sum(len(sentence) - 1 for sentence in sentences)
    assert german.words == sum(len(text.split()) - 1 for text in work.text("train.de"))
    assert german.unknown == 0
    stored = json.loads((work.output / "statistics.json").read_text(encoding="utf-8"))
    assert stored["files"][0]["subwords"] == statistics.files[0].subwords
    assert str(work.directory) not in json.dumps(stored)
    assert [total["file"] for total in stored["totals"]] == ["train.en", "train.de", "train.de-en.de", "train.de-en.en"]
    row = next(line for line in str(statistics).splitlines() if line.startswith("train.de "))
    assert row.split()[:3] == ["train.de", "3", "3"]


def test_warnings_come_before_the_long_work_and_after_it(work: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    english = ["The dog is on the sofa and that was not for you."] * 20
    work.write("mono.de", english)
    work.write("mono.en", [f"The do@@ g {i}." for i in range(20)])
    statistics = prepare(work.config(), lambda known: print_warnings(statistics_warnings(known)))
    early = capsys.readouterr().out.partition("tokenize:")[0]
    for warning in (
        r"train\.mono\.de: .*mono\.de reads like en, not de; were files swapped\?",
        r"train\.mono\.en: 20 of 20 lines of .*mono\.en hold '@@ ', as after BPE",
    ):
        assert re.search(f"WARNING: {warning}", early)
        assert any(re.match(warning, finding.what) for finding in statistics_warnings(statistics))
    few_codes = work.prepare(bpe=BpeConfig(merges=1), overwrite=True)
    warnings = [finding.what for finding in statistics_warnings(few_codes)]
    assert any("subwords a word; were the codes learned from text like this" in warning for warning in warnings)
    few_codes.vocab_size = 3_700_000
    (warning,) = [
        finding.what for finding in statistics_warnings(few_codes) if "vocabulary of 3,700,000" in finding.what
    ]
    assert "3,789 million parameters" in warning


def test_statistics_of_0_1_0_are_read_with_the_names_of_the_settings(work: Workplace) -> None:
    statistics = work.prepare()
    path = work.output / "statistics.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["files"][0]["dropped"] = {"overlap": 3, "too_long": 2, "empty": 1}
    path.write_text(json.dumps(content), encoding="utf-8")
    read = Statistics.read(path)
    assert read is not None
    assert dropped(read.files[0]) == {"decontaminate": 3, "max_tokens": 2, "empty": 1}
    assert [file.sentences for file in read.files[1:]] == [file.sentences for file in statistics.files[1:]]
